//! One connection of a server, with the time-outs of its requests.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, service::Service};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{self, Instant};

use super::Rules;
use super::problem::Problem;

/// The time for which a closed connection is still read, so that its client gets the last answer.
const LINGER: Duration = Duration::from_secs(1);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Serves the requests of a connection until its client closes it, or is late.
pub async fn serve<S>(stream: TcpStream, service: S, rules: Rules)
where
    S: Service<Request<Body>, Response = Response, Error: Into<BoxError>> + Clone,
{
    // Small answers must not wait for the client's acknowledgement.
    let _ = stream.set_nodelay(true);
    let activity = Activity::default();
    let watched = WatchedStream {
        stream,
        activity: activity.clone(),
    };
    let answering = service_fn(|request| answer(request, service.clone(), &rules, activity.clone()));
    let mut connection = http1::Builder::new()
        // The time-out of hyper would also close idle connections, possibly just as the next request comes.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(watched), answering);
    let late = tokio::select! {
        // An error of a connection concerns its client only.
        _ = &mut connection => return,
        late = activity.late(&rules) => late,
    };
    let stream = connection.into_parts().io.into_inner().stream;
    match late {
        Late::Head => {
            let detail = format!(
                "The head of the request did not arrive within {:?}. Repeat it.",
                rules.head
            );
            refuse(stream, &Problem::new(StatusCode::REQUEST_TIMEOUT, detail)).await;
        }
        Late::Idle => {}
    }
}

/// Answers on a connection that serves no request, and closes it.
pub async fn refuse(mut stream: TcpStream, problem: &Problem) {
    let refusal = async {
        stream.write_all(&problem.to_bytes()).await?;
        stream.shutdown().await?;
        // A socket that is closed with unread data discards the answer.
        let mut rest = [0; 1_024];
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    // The client may be gone, or never close its side.
    let _ = time::timeout(LINGER, refusal).await;
}

/// Answers a request, unless it must be refused or its body is late. The answer to a refused request is the last one of
/// its connection.
async fn answer<S>(
    request: Request<Incoming>,
    service: S,
    rules: &Rules,
    activity: Activity,
) -> Result<Response, S::Error>
where
    S: Service<Request<Body>, Response = Response>,
{
    let _request = activity.request();
    if let Err(problem) = rules.names.check(&request) {
        return Ok(last(problem));
    }
    let (request, unread) = watch_body(request);
    tokio::select! {
        answer = service.call(request) => answer,
        () = unread.longer_than(rules.body) => {
            let detail = format!("The body of the request did not arrive within {:?}. Repeat it.", rules.body);
            Ok(last(Problem::new(StatusCode::REQUEST_TIMEOUT, detail)))
        }
    }
}

fn last(problem: Problem) -> Response {
    let mut answer = problem.into_response();
    answer
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// Tells that a body has not been read to its end, nor dropped.
struct Unread(oneshot::Receiver<()>);

impl Unread {
    /// Waits until the body was unread for this time; never ends otherwise.
    async fn longer_than(self, limit: Duration) {
        if time::timeout(limit, self.0).await.is_ok() {
            std::future::pending::<()>().await;
        }
    }
}

/// Returns the request with a body that reports its end.
fn watch_body(request: Request<Incoming>) -> (Request<Body>, Unread) {
    let (held, dropped) = oneshot::channel::<()>();
    let request = request.map(|body| {
        if body.is_end_stream() {
            return Body::empty();
        }
        // The sender is dropped with the body, which is when a reader has collected it or does not want it.
        Body::new(body.map_frame(move |frame| {
            let _ = &held;
            frame
        }))
    });
    (request, Unread(dropped))
}

/// The reason for which a connection is closed.
enum Late {
    /// The head of a request has begun, but did not come to its end.
    Head,
    /// There was no request for a long time, or nobody reads the last answer.
    Idle,
}

/// The progress of a connection, which its stream and its requests report.
#[derive(Clone)]
struct Activity(Arc<Mutex<Progress>>);

struct Progress {
    in_request: bool,
    /// The time at which the first byte of the next head arrived.
    head_since: Option<Instant>,
    last_byte: Instant,
}

impl Default for Activity {
    fn default() -> Activity {
        Activity(Arc::new(Mutex::new(Progress {
            in_request: false,
            head_since: None,
            last_byte: Instant::now(),
        })))
    }
}

impl Activity {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that bytes were received or sent.
    fn moved(&self, received: bool) {
        let mut progress = self.progress();
        progress.last_byte = Instant::now();
        if received && !progress.in_request && progress.head_since.is_none() {
            progress.head_since = Some(progress.last_byte);
        }
    }

    /// Notes that a head has arrived; the request is answered when the returned value is dropped.
    fn request(&self) -> InRequest {
        let mut progress = self.progress();
        (progress.in_request, progress.head_since) = (true, None);
        InRequest(self.clone())
    }

    /// Waits until the client is late.
    async fn late(&self, rules: &Rules) -> Late {
        loop {
            let now = Instant::now();
            let deadline = {
                let progress = self.progress();
                match progress.head_since {
                    _ if progress.in_request => None,
                    Some(since) => Some((since + rules.head, Late::Head)),
                    None => Some((progress.last_byte + rules.idle, Late::Idle)),
                }
            };
            // No deadline that is set meanwhile is earlier than that of a head that begins now.
            let look_again = now + rules.head;
            match deadline {
                Some((deadline, late)) if deadline <= now => return late,
                Some((deadline, _)) => time::sleep_until(deadline.min(look_again)).await,
                None => time::sleep_until(look_again).await,
            }
        }
    }
}

/// A request that is being answered.
struct InRequest(Activity);

impl Drop for InRequest {
    fn drop(&mut self) {
        let mut progress = self.0.progress();
        (progress.in_request, progress.last_byte) = (false, Instant::now());
    }
}

/// A stream that reports its bytes.
struct WatchedStream {
    stream: TcpStream,
    activity: Activity,
}

impl WatchedStream {
    fn sent(&self, sent: io::Result<usize>) -> Poll<io::Result<usize>> {
        self.activity.moved(false);
        Poll::Ready(sent)
    }
}

impl AsyncRead for WatchedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        if buf.filled().len() > before {
            self.activity.moved(true);
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        self.sent(sent)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs));
        self.sent(sent)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

//! An HTTP/1 server on this machine. Dropping its value closes the port and every connection.

use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use tokio::time;

/// The pause after a connection could not be accepted, for example because this process has too many open files.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(200);

/// Binds a port of 127.0.0.1, never of an outside interface. Port 0 stands for any free port.
///
/// # Errors
///
/// Fails with [`io::ErrorKind::AddrInUse`] if another program has the port.
pub async fn bind(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await
}

/// Occupies a port of 127.0.0.1 without listening on it.
///
/// # Errors
///
/// Fails if another program has the port, and for a while after connections to it were closed.
pub fn keep(port: u16) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Two sockets that both allow the reuse of an address could both bind the port.
    socket.set_reuseaddr(false)?;
    socket.bind((Ipv4Addr::LOCALHOST, port).into())?;
    Ok(socket)
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    accepting: JoinSet<()>,
}

impl Server {
    /// Serves an axum router.
    ///
    /// # Errors
    ///
    /// Fails if the listener has no local address.
    pub fn route(listener: TcpListener, router: Router) -> io::Result<Server> {
        Server::serve(listener, TowerToHyperService::new(router))
    }

    /// Serves a hyper service. An `Err` of the service closes the connection without an answer.
    ///
    /// # Errors
    ///
    /// Fails if the listener has no local address.
    pub fn serve<S, B>(listener: TcpListener, service: S) -> io::Result<Server>
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let address = listener.local_addr()?;
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            // The task owns the connections, so that they end with it.
            let mut connections = JoinSet::new();
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    Some(_) = connections.join_next() => continue,
                };
                match accepted {
                    Ok((stream, _)) => {
                        // Small answers must not wait for the client's acknowledgement.
                        let _ = stream.set_nodelay(true);
                        let connection = http1::Builder::new()
                            // A time-out would also close idle connections, possibly just as the next request comes.
                            .header_read_timeout(None)
                            .serve_connection(TokioIo::new(stream), service.clone());
                        // An error of a connection concerns its client only.
                        connections.spawn(async move { drop(connection.await) });
                    }
                    Err(error) => {
                        tracing::warn!(error = %error, "a connection could not be accepted; pausing for 200 ms");
                        time::sleep(PAUSE_AFTER_ERROR).await;
                    }
                }
            }
        });
        Ok(Server { address, accepting })
    }

    /// Returns the address on which the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops the server and waits until the port is free again.
    pub async fn stop(mut self) {
        self.accepting.shutdown().await;
    }
}

//! An HTTP/1 server on this machine. Dropping its value closes the port and every connection.
//!
//! Every server of the local stack is one of these. It answers only requests that are meant for it (`names`), closes
//! connections on which a request does not arrive in time (`connection`), and bounds their number.

mod connection;
mod names;
mod problem;

use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use hyper::Request;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use tokio::time;

pub use self::names::HostNames;
pub use self::problem::Problem;

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

/// The rules of a server for connections and requests.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The names under which it may be called.
    pub names: HostNames,
    /// The number of connections at the same time; further ones are answered with 503.
    pub connections: usize,
    /// The time from the first byte of a request's head to the last. A later head is answered with 408.
    pub head: Duration,
    /// The time for the body of a request. A later body is answered with 408.
    pub body: Duration,
    /// The time after which a connection without a request is closed. It is longer than the 90 s for which the clients
    /// of the stack keep idle connections, so that none of them sends a request just as its connection is closed.
    pub idle: Duration,
}

impl Default for Rules {
    /// Returns the rules of a server that only other parts of the stack call. Each message that is being sent may have a
    /// connection, on ten Pages with two seconds' worth of the rate each.
    fn default() -> Rules {
        Rules {
            names: HostNames::default(),
            connections: 2_048,
            head: Duration::from_secs(10),
            body: Duration::from_secs(30),
            idle: Duration::from_secs(120),
        }
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    accepting: JoinSet<()>,
}

impl Server {
    /// Serves an axum router by the default rules.
    ///
    /// # Errors
    ///
    /// Fails if the listener has no local address.
    pub fn route(listener: TcpListener, router: Router) -> io::Result<Server> {
        Server::serve(listener, TowerToHyperService::new(router), Rules::default())
    }

    /// Serves a hyper service by these rules. An `Err` of the service closes the connection without an answer.
    ///
    /// # Errors
    ///
    /// Fails if the listener has no local address.
    pub fn serve<S>(listener: TcpListener, service: S, rules: Rules) -> io::Result<Server>
    where
        S: Service<Request<Body>, Response = Response> + Clone + Send + Sync + 'static,
        S::Future: Send,
        S::Error: Into<Box<dyn Error + Send + Sync>> + Send,
    {
        let address = listener.local_addr()?;
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, service, rules));
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

/// Accepts connections for ever.
async fn accept<S>(listener: TcpListener, service: S, rules: Rules)
where
    S: Service<Request<Body>, Response = Response> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn Error + Send + Sync>> + Send,
{
    // The task owns the connections, so that they end with it.
    let (mut connections, mut refused) = (JoinSet::new(), JoinSet::new());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            Some(_) = refused.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) if connections.len() < rules.connections => {
                connections.spawn(connection::serve(stream, service.clone(), rules.clone()));
            }
            // A flood of refused connections is closed without answers.
            Ok((stream, _)) if refused.len() < rules.connections => {
                refused.spawn(async { connection::refuse(stream, &too_many_connections()).await });
            }
            Ok((stream, _)) => drop(stream),
            Err(error) => {
                tracing::warn!(error = %error, "a connection could not be accepted; pausing for 200 ms");
                time::sleep(PAUSE_AFTER_ERROR).await;
            }
        }
    }
}

fn too_many_connections() -> Problem {
    let detail = "This server has too many connections. Close those that are not used, and repeat the request later.";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
}

#[cfg(test)]
mod tests;

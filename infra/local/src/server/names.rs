//! The names under which a server may be called.
//!
//! A browser lets a web page call every server that it can reach, so a server that listens on 127.0.0.1 only must
//! still refuse web pages. A page of another site sends its `Origin`. A page that rebinds its own DNS name to 127.0.0.1
//! is of the same origin for the browser, but sends that name as `Host`.

use std::sync::Arc;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Request, StatusCode, Uri, header};

use super::problem::Problem;

/// The names of this machine, with any port.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

const HOST_REFUSED: &str = "The request must have one Host header with a name of this server, which is localhost, \
    127.0.0.1 or [::1]. To call the API by another name, start it with `oncecast up --allow-host NAME`.";
const ORIGIN_REFUSED: &str = "Web pages of another origin must not call this server. To let a site call the API, start \
    it with `oncecast up --allow-host NAME` and the name of that site.";

/// The names under which a server may be called, beside those of this machine.
#[derive(Clone, Debug, Default)]
pub struct HostNames(Arc<[String]>);

impl HostNames {
    /// Returns these names. They are compared without regard to case.
    pub fn new(names: &[String]) -> HostNames {
        HostNames(names.iter().map(|name| name.to_ascii_lowercase()).collect())
    }

    /// Checks that a request was meant for this server, and that no page of another site made it.
    ///
    /// # Errors
    ///
    /// Fails with status 403 if the request has no `Host`, more than one or a foreign one, or a foreign `Origin`.
    pub fn check<B>(&self, request: &Request<B>) -> Result<(), Problem> {
        let forbidden = |detail| Err(Problem::new(StatusCode::FORBIDDEN, detail));
        let headers = request.headers();
        // A request line with a whole URL names the server, too.
        let target = request.uri().authority();
        if !self.has_host(headers) || target.is_some_and(|target| !self.contain(target)) {
            return forbidden(HOST_REFUSED);
        }
        let mut origins = headers.get_all(header::ORIGIN).iter();
        if origins.all(|origin| origin.to_str().is_ok_and(|origin| self.contain_origin(origin))) {
            Ok(())
        } else {
            forbidden(ORIGIN_REFUSED)
        }
    }

    fn has_host(&self, headers: &HeaderMap) -> bool {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return false;
        };
        let host = Authority::try_from(host.as_bytes());
        host.is_ok_and(|host| self.contain(&host))
    }

    /// Returns true for the origin of a page that this machine or one of the names serves. A browser sends `null`, which
    /// is none, for a page whose origin it hides.
    fn contain_origin(&self, origin: &str) -> bool {
        let Ok(uri) = origin.parse::<Uri>() else {
            return false;
        };
        let is_http = uri
            .scheme_str()
            .is_some_and(|scheme| ["http", "https"].contains(&scheme));
        is_http && uri.authority().is_some_and(|authority| self.contain(authority))
    }

    fn contain(&self, authority: &Authority) -> bool {
        let name = authority.host().to_ascii_lowercase();
        let mut names = LOOPBACK.into_iter().chain(self.0.iter().map(String::as_str));
        !authority.as_str().contains('@') && names.any(|allowed| allowed == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(names: &HostNames, target: &str, headers: &[(&str, &str)]) -> u16 {
        let headers = headers.iter();
        let request = headers.fold(Request::builder().uri(target), |request, (name, value)| {
            request.header(*name, *value)
        });
        let checked = names.check(&request.body(()).unwrap());
        checked.map_or_else(
            |problem| axum::response::IntoResponse::into_response(problem).status().as_u16(),
            |()| 200,
        )
    }

    #[test]
    fn only_loopback_and_allowed_names_are_hosts() {
        let names = HostNames::new(&["Send.example".to_owned()]);
        for host in [
            "localhost",
            "LOCALHOST:3000",
            "127.0.0.1",
            "127.0.0.1:1",
            "[::1]",
            "[::1]:3000",
            "send.example",
            "SEND.example:443",
        ] {
            assert_eq!(status(&names, "/", &[("host", host)]), 200, "{host}");
            let target = format!("http://{host}/");
            assert_eq!(status(&names, &target, &[("host", "localhost")]), 200, "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "localhost@evil.example",
            "evil@localhost",
            "127.0.0.1.nip.io",
            "127.0.0.2",
            "0.0.0.0",
            "::1",
            "localhost evil",
            "localhost/",
            "x.send.example",
            "localhost.",
        ] {
            assert_eq!(status(&names, "/", &[("host", host)]), 403, "{host}");
        }
        assert_eq!(status(&names, "/", &[]), 403);
        assert_eq!(
            status(&names, "/", &[("host", "localhost"), ("host", "localhost")]),
            403
        );
        assert_eq!(status(&names, "http://evil.example/", &[("host", "localhost")]), 403);
        assert_eq!(status(&HostNames::default(), "/", &[("host", "send.example")]), 403);
    }

    #[test]
    fn foreign_origins_are_refused() {
        let names = HostNames::new(&["send.example".to_owned()]);
        let origins = |origins: &[&str]| {
            let origins = origins.iter().map(|origin| ("origin", *origin));
            status(
                &names,
                "/",
                &Vec::from_iter([("host", "localhost")].into_iter().chain(origins)),
            )
        };
        for origin in [
            "http://localhost:8080",
            "https://127.0.0.1",
            "http://[::1]:1",
            "https://send.example",
        ] {
            assert_eq!(origins(&[origin]), 200, "{origin}");
        }
        for origin in [
            "null",
            "",
            "https://evil.example",
            "http://localhost.evil.example",
            "http://localhost@evil.example",
            "file://localhost",
            "localhost",
            "http://localhost https://evil.example",
        ] {
            assert_eq!(origins(&[origin]), 403, "{origin}");
        }
        assert_eq!(origins(&["http://localhost", "https://evil.example"]), 403);
    }
}

//! The files that the pages load, compiled into the executable: `assets/VENDORED.md` says where those of others come from.

use std::io::{self, Write as _};
use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The time for which a browser keeps a file: its URL changes with its content.
const CACHE: &str = "public, max-age=31536000, immutable";

/// A file.
struct Asset {
    name: &'static str,
    kind: &'static str,
    plain: &'static [u8],
    /// The same, compressed; empty if that failed.
    gzip: Vec<u8>,
    /// The URL, with a digest of the content.
    url: String,
}

static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    vec![
        asset("console.css", CSS, include_bytes!("../assets/console.css")),
        asset("console.js", SCRIPT, include_bytes!("../assets/console.js")),
        asset("compose.js", SCRIPT, include_bytes!("../assets/compose.js")),
        asset("htmx.js", SCRIPT, include_bytes!("../assets/htmx.min.js")),
        asset("uplot.css", CSS, include_bytes!("../assets/uPlot.min.css")),
        asset("uplot.js", SCRIPT, include_bytes!("../assets/uPlot.iife.min.js")),
        asset("icon.svg", "image/svg+xml", include_bytes!("../assets/icon.svg")),
    ]
});

fn asset(name: &'static str, kind: &'static str, plain: &'static [u8]) -> Asset {
    let digest = format!("{:.16}", crate::show::hex(&Sha256::digest(plain)));
    Asset {
        name,
        kind,
        plain,
        gzip: compressed(plain).unwrap_or_default(),
        url: format!("/static/{name}?{digest}"),
    }
}

fn compressed(plain: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain)?;
    encoder.finish()
}

/// Returns the URL of a file, for a page that loads it.
pub fn url(name: &str) -> &'static str {
    let asset = ASSETS.iter().find(|asset| asset.name == name);
    asset.map_or("", |asset| &asset.url)
}

/// Answers with a file.
pub async fn show(Path(name): Path<String>, headers: HeaderMap) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let accepted = headers
        .get(header::ACCEPT_ENCODING)
        .and_then(|value| value.to_str().ok());
    let is_compressed = accepted.is_some_and(|accepted| accepted.contains("gzip")) && !asset.gzip.is_empty();
    let about = [
        (header::CONTENT_TYPE, asset.kind),
        (header::CACHE_CONTROL, CACHE),
        (header::VARY, "accept-encoding"),
    ];
    match is_compressed {
        true => (about, [(header::CONTENT_ENCODING, "gzip")], asset.gzip.as_slice()).into_response(),
        false => (about, asset.plain).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The most bytes of script that a page loads, as they are sent.
    const MOST_SCRIPT: usize = 60_000;

    #[test]
    fn scripts_are_small() {
        let scripts = ASSETS.iter().filter(|asset| asset.kind == SCRIPT);

        let bytes: usize = scripts.map(|asset| asset.gzip.len()).sum();

        assert!((1..MOST_SCRIPT).contains(&bytes), "{bytes} bytes");
    }

    #[test]
    fn vendored_files_are_the_documented_ones() {
        let documented = include_str!("../assets/VENDORED.md");
        for asset in ASSETS
            .iter()
            .filter(|asset| ["htmx.js", "uplot.js", "uplot.css"].contains(&asset.name))
        {
            let digest = crate::show::hex(&Sha256::digest(asset.plain));
            assert!(documented.contains(&digest), "{} has the digest {digest}", asset.name);
        }
    }
}

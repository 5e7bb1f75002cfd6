//! The trace header of a chain of requests, by which Lambda finds recursive loops: it counts the invocations of each function
//! in the header's lineage, and every AWS SDK passes the header of its invocation on with each call.
//!
//! <https://docs.aws.amazon.com/lambda/latest/dg/invocation-recursion.html> describes the detection. The form of the lineage
//! is not documented; it is the one that headers have on AWS: `Lineage=1:a84cdf6d:0`, a digest of the function and the number
//! of its invocations before this one.

use std::fmt;

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// The number of invocations of one function in a chain of requests after which Lambda refuses the next one.
const MAX_IN_CHAIN: u32 = 16;

/// The trace header of one invocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    root: String,
    /// The functions of the chain by their digests, each with the number of its invocations.
    lineage: Vec<(String, u32)>,
}

impl Trace {
    /// Returns the trace of a chain that begins now.
    pub fn begin() -> Trace {
        let id = Uuid::new_v4().simple().to_string();
        let (time, random) = id.split_at(8);
        Trace {
            root: format!("1-{time}-{}", &random[..24]),
            lineage: Vec::new(),
        }
    }

    /// Reads a header. One that cannot be read begins a chain.
    pub fn parse(header: &str) -> Trace {
        let field = |name: &str| {
            let mut fields = header.split(';').filter_map(|field| field.trim().split_once('='));
            fields.find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        let lineage = field("Lineage").unwrap_or_default().split('|');
        let lineage = lineage.filter_map(|one| {
            let (function, before) = one.rsplit_once(':')?;
            let (_, function) = function.rsplit_once(':').unwrap_or(("", function));
            Some((function.to_owned(), before.parse::<u32>().ok()?.saturating_add(1)))
        });
        match field("Root") {
            Some(root) => Trace {
                root: root.to_owned(),
                lineage: lineage.collect(),
            },
            None => Trace::begin(),
        }
    }

    /// Returns the trace of the function's invocation by this chain; `None` if it has been invoked too often in it.
    pub fn invoke(mut self, function: &str) -> Option<Trace> {
        let digest = digest(function);
        let known = self.lineage.iter_mut().find(|(known, _)| *known == digest);
        match known {
            Some((_, invocations)) if *invocations >= MAX_IN_CHAIN => return None,
            Some((_, invocations)) => *invocations += 1,
            None => self.lineage.push((digest, 1)),
        }
        Some(self)
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Root={};Sampled=0", self.root)?;
        for (n, (function, invocations)) in self.lineage.iter().enumerate() {
            let prefix = if n == 0 { ";Lineage=" } else { "|" };
            write!(f, "{prefix}1:{function}:{}", invocations.saturating_sub(1))?;
        }
        Ok(())
    }
}

fn digest(function: &str) -> String {
    let digest = Sha256::digest(function);
    digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seventeenth_invocation_in_a_chain_is_refused() {
        let mut header = Trace::begin().invoke("scheduled").unwrap().to_string();
        for before in 0..16 {
            let trace = Trace::parse(&header).invoke("process-job").unwrap();
            assert_eq!(Trace::parse(&trace.to_string()), trace);
            header = trace.to_string();
            assert!(header.ends_with(&format!(":{before}")), "{header}");
        }
        assert_eq!(Trace::parse(&header).invoke("process-job"), None);
        assert!(Trace::parse(&header).invoke("send").is_some());
        assert!(Trace::parse("Root=1-2-3;Sampled=0").invoke("process-job").is_some());
    }

    #[test]
    fn headers_of_aws_are_read() {
        const ROOT: &str = "Root=1-64ff80a6-632b58284837d71d7c99be29;Parent=15c25d854ec8f782;Sampled=0";
        for (lineage, expected) in [
            ("", &[][..]),
            (";Lineage=1:a84cdf6d:0", &[("a84cdf6d", 1)]),
            (";Lineage=a87bd80c:1|68fd508a:5", &[("a87bd80c", 2), ("68fd508a", 6)]),
        ] {
            let trace = Trace::parse(&format!("{ROOT}{lineage}"));
            assert_eq!(trace.root, "1-64ff80a6-632b58284837d71d7c99be29");
            let read: Vec<_> = trace
                .lineage
                .iter()
                .map(|(name, count)| (name.as_str(), *count))
                .collect();
            assert_eq!(read, expected);
        }
    }
}

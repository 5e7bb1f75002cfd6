//! Controls of a broadcast: their bodies, dry runs, history, and what they do when the jobs change meanwhile.

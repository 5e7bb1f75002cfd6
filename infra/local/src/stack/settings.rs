//! The settings of the system.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use shared::domain::sending::SendingState;

use crate::gateway::JwtSettings;
use crate::lambda::RecursiveLoop;
use crate::notify::NotifySettings;

/// The maximal number of processes of a function of `up`.
const MAX_CHILDREN: u32 = 10;

/// The settings with which the system runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The port of the API; 0 stands for any free port.
    pub port: u16,
    /// Messenger's base URL, including the version. `None` stands for the sandbox.
    pub graph_url: Option<String>,
    /// A JSON file of Page access tokens; required unless the sandbox is used.
    pub page_tokens: Option<PathBuf>,
    /// A JSON file of the callers' tokens. `None` lets every caller use the API.
    pub api_tokens: Option<PathBuf>,
    /// The JWTs by which callers are known, in place of `api_tokens`.
    pub jwt: Option<JwtSettings>,
    /// Names of the API beside those of this machine, for example of a reverse proxy.
    pub allow_hosts: Vec<String>,
    /// The directory that keeps the data from one start to the next. `None` keeps the data in memory.
    pub data: Option<PathBuf>,
    /// The position in which the switch for sending is set before any function runs. `None` leaves it as it is.
    pub sending: Option<SendingState>,
    /// The receiver of events. `None` keeps them in the outbox.
    pub notify: Option<NotifySettings>,
    /// The interval between invocations of `scheduled`.
    pub schedule_every: Duration,
    /// The time-out of one invocation of `process-job`.
    pub process_timeout: Duration,
    /// The time by which the visibility time-out of a queue message exceeds `process_timeout`.
    pub visibility_margin: Duration,
    /// The maximal number of processes of a function, and so of Pages that are worked on at the same time.
    pub max_children: u32,
    /// The executable of the functions' processes. With the arguments `function NAME` it must run that function, as the
    /// command line `oncecast` does.
    pub executable: PathBuf,
    /// The consequence of a recursive loop. `None` stands for that of the template.
    pub recursive_loop: Option<RecursiveLoop>,
    /// A file to which the AWS actions that the functions call are appended. `None` records none.
    pub log_calls: Option<PathBuf>,
    /// Lets eventually consistent reads and queries of indexes lag, as they may on AWS.
    pub lagging_reads: bool,
    /// Further environment variables of the functions.
    pub env: BTreeMap<String, String>,
}

impl Default for Settings {
    /// Returns the settings of `up`, but with a free port. The functions run in the current executable.
    fn default() -> Settings {
        Settings {
            port: 0,
            graph_url: None,
            page_tokens: None,
            api_tokens: None,
            jwt: None,
            allow_hosts: Vec::new(),
            data: None,
            sending: None,
            notify: None,
            schedule_every: Duration::from_secs(60),
            process_timeout: Duration::from_secs(120),
            visibility_margin: Duration::from_secs(30),
            max_children: MAX_CHILDREN,
            executable: std::env::current_exe().unwrap_or_default(),
            recursive_loop: None,
            log_calls: None,
            lagging_reads: false,
            env: BTreeMap::new(),
        }
    }
}

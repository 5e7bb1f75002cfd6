//! The access that each route of the API requires, as `infra/template.yaml` declares it.

const BROADCASTS_READ: &str = "broadcasts:read";
const BROADCASTS_WRITE: &str = "broadcasts:write";
const CONTACTS_WRITE: &str = "contacts:write";

/// All scopes.
pub const SCOPES: [&str; 3] = [BROADCASTS_READ, BROADCASTS_WRITE, CONTACTS_WRITE];

/// The path of the health check.
pub const HEALTH: &str = "/v1/health";
const DOCUMENT: &str = "/v1/openapi.json";
const WEBHOOKS: &str = "/v1/webhooks/messenger";
const CONTACTS: &str = "/v1/contacts";

/// The access that a route requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The route is open. Messenger signs its webhooks, a monitor has no token, and the document is no secret.
    Open,
    /// The route is for callers with this scope.
    Scope(&'static str),
}

impl Access {
    /// Returns the access of a route. An unknown one is treated like those of broadcasts.
    pub fn of(method: &str, path: &str) -> Access {
        let reads = ["GET", "HEAD"].contains(&method);
        match path {
            HEALTH | DOCUMENT | WEBHOOKS => Access::Open,
            _ if path.starts_with(CONTACTS) => Access::Scope(CONTACTS_WRITE),
            _ if reads => Access::Scope(BROADCASTS_READ),
            _ => Access::Scope(BROADCASTS_WRITE),
        }
    }
}

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
const PROBLEMS: &str = "/v1/problems/";
const CONTACTS: &str = "/v1/contacts";
const COUNT: &str = "/v1/audiences/count";
/// The imports of Pages' contacts.
const PAGES: &str = "/v1/pages/";

/// The access that a route requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The route is open. Messenger signs its webhooks, a monitor has no token, and documents are no secret.
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
            _ if path.starts_with(PROBLEMS) => Access::Open,
            _ if is_deliveries_of_contact(path) => Access::Scope(BROADCASTS_READ),
            _ if path.starts_with(CONTACTS) || path.starts_with(PAGES) => Access::Scope(CONTACTS_WRITE),
            COUNT => Access::Scope(BROADCASTS_READ),
            _ if reads => Access::Scope(BROADCASTS_READ),
            _ => Access::Scope(BROADCASTS_WRITE),
        }
    }
}

/// Returns true for the list of the deliveries to a contact, which is a report. A contact may be called `deliveries`.
fn is_deliveries_of_contact(path: &str) -> bool {
    let contact = path
        .strip_prefix(CONTACTS)
        .and_then(|rest| rest.strip_suffix("/deliveries"));
    contact.is_some_and(|contact| contact.len() > 1)
}

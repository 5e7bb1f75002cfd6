//! Jobs that wait because sending is switched off: the part of a report that is not stored with the broadcast.

use shared::app::App;
use shared::domain::ids::PageId;
use shared::domain::job::JobStatus;
use shared::domain::sending::SendingState;
use shared::store;
use shared::store::sending::Switches;

use crate::api::broadcasts::{JobReport, Stopped};

/// Has the jobs that are not at their end show that sending is switched off, as of a moment ago. Returns the first reason.
///
/// # Errors
/// If DynamoDB does not answer.
pub async fn mark_stopped(app: &App, jobs: &mut [JobReport]) -> Result<Option<Stopped>, store::Error> {
    let is_over = |status| [JobStatus::Completed, JobStatus::Cancelled].contains(&status);
    let open: Vec<_> = jobs.iter_mut().filter(|job| !is_over(job.status)).collect();
    if open.is_empty() {
        return Ok(None);
    }
    let pages: Vec<_> = open.iter().map(|job| job.page_id.clone()).collect();
    let switches = app.store.sending().read_lately(&pages, app.clock.now()).await?;
    let mut first = None;
    for job in open {
        job.stopped = stopped(&switches, &job.page_id);
        first = first.or_else(|| job.stopped.clone());
    }
    Ok(first)
}

fn stopped(switches: &Switches, page_id: &PageId) -> Option<Stopped> {
    let switch = switches.of(page_id).switch;
    let is_for_all = switches.all.state != SendingState::On;
    (switch.state != SendingState::On).then(|| Stopped {
        by: switch.changed_by,
        at: switch.changed_at,
        reason: switch.reason,
        page_id: (!is_for_all).then(|| page_id.clone()),
    })
}

//! The hand-over of a run that was stopped, or that could not begin for lack of a secret.

use tracing::error;

use crate::app::App;
use crate::messenger::MessengerClient;
use crate::runtime::secrets;
use crate::store;
use crate::store::hand_over::HandOver;
use crate::worker::deliver::Sender;
use crate::worker::stop::Stop;

/// Returns the hand-over of a job that cannot be sent for lack of a secret: `Waiting` if the secret may become readable by
/// itself, else `Halted`.
pub fn hand_over_without_secret(app: &App, error: &secrets::Error) -> HandOver {
    if !error.may_pass() {
        return HandOver::Halted(error.to_string());
    }
    error!(
        error = error as &dyn std::error::Error,
        "secret not read; the job waits and tries again"
    );
    HandOver::Waiting(app.clock.now() + app.config.retry_base)
}

/// Returns the hand-over of a run that was stopped, or `None` if another worker has claimed the job.
pub async fn end_for(sender: &Sender<'_>, stop: Stop, is_finished: bool) -> Result<Option<HandOver>, store::Error> {
    Ok(Some(match stop {
        Stop::Unsettled(error) => return Err(error),
        Stop::Overtaken => return Ok(None),
        Stop::Yield
        | Stop::Pause(_)
        | Stop::Quiet(_)
        | Stop::SwitchedOff
        | Stop::Commanded
        | Stop::TokenRefused(_)
        | Stop::Halt(_)
            if is_finished =>
        {
            HandOver::Completed
        }
        Stop::Yield | Stop::Commanded => HandOver::Queued,
        Stop::Pause(until) => HandOver::Waiting(until),
        Stop::Quiet(until) => HandOver::Quiet(until),
        // Due at once: the next firing of the schedule that finds sending switched on wakes the job.
        Stop::SwitchedOff => HandOver::Waiting(sender.app.clock.now()),
        Stop::TokenRefused(reason) => end_for_refused_token(sender.app, &sender.messenger, reason).await,
        Stop::Halt(reason) => HandOver::Halted(reason),
    }))
}

/// Returns the hand-over on a refused token: `Queued` if another token is available by now, else `Halted`. The contacts
/// that were refused have been requeued, so the next run loses none of them.
pub async fn end_for_refused_token(app: &App, messenger: &MessengerClient, reason: String) -> HandOver {
    let renewed = app.secrets.is_renewed(&messenger.page_id, &messenger.access.token);
    match renewed.await {
        Ok(true) => HandOver::Queued,
        Ok(false) => HandOver::Halted(reason),
        Err(error) => hand_over_without_secret(app, &error),
    }
}

//! The rules of the protocol. The code follows all of them; a test removes one to see what it is needed for.

#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// A row is reserved only if it is absent or waiting.
    pub reserve_if_free: bool,
    /// A waiting row is reserved only if its epoch is not above the worker's.
    pub reserve_if_not_newer: bool,
    /// A worker that finds a row reserved by an older claim does not send to it again.
    pub older_is_not_free: bool,
    /// A worker that finds a row reserved by an older claim puts it in doubt.
    pub older_is_in_doubt: bool,
    /// A refusal that shows the worker's own token or id is a win.
    pub own_token_is_a_win: bool,
    /// An outcome is recorded only while the row has the worker's token.
    pub record_under_own_token: bool,
    /// A row in doubt is not recorded as waiting.
    pub no_way_back_from_doubt: bool,
    /// A row is never failed or skipped while an earlier attempt is in doubt.
    pub not_failed_after_doubt: bool,
    /// The condition of checkpoints, hand-overs and batches.
    pub checkpoint: Condition,
    /// Requeued contacts are appended in the transaction that moves the cursor.
    pub append_with_cursor: bool,
    /// Rows are put in doubt each on its own condition; a row that has changed is handled as found.
    pub doubt_as_found: bool,
    /// A write that moves a row out of doubt also moves the counters.
    pub doubt_is_counted: bool,
    /// A claim id is never used twice.
    pub unique_claim_ids: bool,
    /// The rows of a retry change in the transaction that appends their segment.
    pub retry_in_one_transaction: bool,
    /// A batch is conditional on the number of segments.
    pub batch_on_segment_count: bool,
    /// A command is carried out before the worker starts any contact.
    pub command_before_work: bool,
    /// A retry or resend is commanded only for a completed job.
    pub command_if_completed: bool,
    /// A job with a command that is not carried out is not completed, even if its cursor is at the end.
    pub command_before_completion: bool,
    /// A part of an audience is written on top of the worker's last write.
    pub part_on_last_write: bool,
    /// The segments of a part are written in the transaction that counts them.
    pub part_in_transaction: bool,
    /// The position up to which the contacts were looked at is written in that transaction, too.
    pub position_in_transaction: bool,
    /// No contact is started before all of the audience is found.
    pub resolve_before_sending: bool,
    /// A job whose audience is not found is not completed, even if its cursor is at the end.
    pub resolved_before_completion: bool,
    /// Nobody is looked for before the index shows all that was written before acceptance.
    pub wait_for_index: bool,
    /// A control is conditional on the status that it was decided by.
    pub control_on_status: bool,
    /// A control is written together with an entry of the history, so that its repetition is refused by its own entry.
    pub control_once: bool,
    /// Neither a pause nor a resume replaces a cancel.
    pub cancel_is_final: bool,
    /// A claim that finds a stop obeys it before it starts any contact.
    pub claim_obeys_stop: bool,
    /// The answers to checkpoints and batches show a stop.
    pub checkpoint_shows_stop: bool,
    /// A job is paused only if the pause still stands.
    pub paused_if_it_stands: bool,
    /// A job is completed only if no cancel stands.
    pub completed_unless_cancelled: bool,
    /// A job is halted only if no cancel stands.
    pub halted_unless_cancelled: bool,
    /// A completed or halted job keeps no pause.
    pub pause_ends: bool,
    /// A cancel is a drain: it skips row by row.
    pub cancel_is_drain: bool,
    /// A drain skips a row only on the condition of a reservation.
    pub skip_if_free: bool,
    /// A drain skips no row with an earlier attempt in doubt.
    pub skip_unless_earlier_doubt: bool,
    /// A resend by policy names its rows.
    pub resend_names_rows: bool,
    /// No worker is frozen between reserving and sending at the time of the last lookup: the assumption of a resend by policy.
    pub no_sender_at_last_lookup: bool,
}

impl Rules {
    pub const ALL: Self = Self {
        reserve_if_free: true,
        reserve_if_not_newer: true,
        older_is_not_free: true,
        older_is_in_doubt: true,
        own_token_is_a_win: true,
        record_under_own_token: true,
        no_way_back_from_doubt: true,
        not_failed_after_doubt: true,
        checkpoint: Condition::LastWrite,
        append_with_cursor: true,
        doubt_as_found: true,
        doubt_is_counted: true,
        unique_claim_ids: true,
        retry_in_one_transaction: true,
        batch_on_segment_count: true,
        command_before_work: true,
        command_if_completed: true,
        command_before_completion: true,
        part_on_last_write: true,
        part_in_transaction: true,
        position_in_transaction: true,
        resolve_before_sending: true,
        resolved_before_completion: true,
        wait_for_index: true,
        control_on_status: true,
        control_once: true,
        cancel_is_final: true,
        claim_obeys_stop: true,
        checkpoint_shows_stop: true,
        paused_if_it_stands: true,
        completed_unless_cancelled: true,
        halted_unless_cancelled: true,
        pause_ends: true,
        cancel_is_drain: true,
        skip_if_free: true,
        skip_unless_earlier_doubt: true,
        resend_names_rows: true,
        no_sender_at_last_lookup: true,
    };
}

/// The condition on which a worker writes its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The id of the claim, checkpoint or hand-over before it.
    LastWrite,
    /// The epoch: no other worker has claimed the job since.
    Epoch,
    Nothing,
}

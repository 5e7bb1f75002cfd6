//! Messenger's errors in words for an operator: the consequence for the contact, and what can be done.

use crate::domain::reasons::is_of;
use crate::messenger::codes::*;

/// Returns `true` if this code of a reason is Messenger's refusal of a Page's access token.
pub fn concerns_token(code: &str) -> bool {
    let codes = [SESSION, INVALID_ACCESS_TOKEN, INVALID_APP, USER_TOKEN];
    codes.iter().any(|known| is_of(code, &known.to_string()))
}

/// Returns `true` if this code of a reason is Messenger's refusal for lack of a permission.
pub fn concerns_permission(code: &str) -> bool {
    let number = code.split('/').next().and_then(|number| number.parse().ok());
    matches!(
        number,
        Some(CAPABILITY | PERMISSION_DENIED | PERMISSION..=LAST_PERMISSION)
    )
}

/// Returns what an operator can do about a refusal to list the conversations of a Page, by its code as a reason holds it.
pub fn remedy_for_list(code: &str) -> &'static str {
    let number = code.split('/').next().and_then(|number| number.parse().ok());
    match number {
        _ if concerns_token(code) => "Give the Page a new access token, then start the import again.",
        _ if concerns_permission(code) => {
            "The app needs pages_messaging, pages_manage_metadata and pages_read_engagement for this Page, with Advanced Access \
             unless the Page is your own. Grant them, give the Page a new access token, then start the import again."
        }
        Some(BLOCKED_FOR_POLICIES | COMMERCE_MESSAGES_DISABLED) => {
            "Messenger restricts the Page: see its support inbox. Start the import again when that is over."
        }
        Some(_) => "See Meta's reference of error codes, repair the cause, then start the import again.",
        None => "Repair the cause if it lasts, then start the import again.",
    }
}

/// Returns the meaning of an error for the contact that got it.
pub fn meaning_of_error(code: i64, subcode: Option<i64>) -> &'static str {
    match (code, subcode) {
        (PERMISSION | USER_BLOCK, Some(sub::NOT_AVAILABLE)) | (USER_BLOCK, _) => {
            "Messenger does not deliver to the contact now: it may have blocked the Page, or its account is not active."
        }
        (PERMISSION_DENIED, Some(sub::OUTSIDE_WINDOW | sub::OUTSIDE_24_HOURS | sub::OUTSIDE_WINDOW_OF_NEWS)) => {
            "The contact has not written to the Page for 24 hours."
        }
        (PERMISSION_DENIED, Some(sub::CANNOT_RECEIVE)) => "The contact cannot receive messages of the Page now.",
        (PERMISSION_DENIED, Some(sub::TOPIC_STOPPED)) => "The contact has stopped notifications of this topic.",
        (PERMISSION_DENIED, Some(sub::THREAD_IMPACTED)) => "Messenger does not deliver to this conversation now.",
        (PERMISSION_DENIED, Some(_)) => "Messenger does not allow the message to this contact.",
        (BAD_PARAMETER, Some(sub::NO_MATCHING_USER)) => {
            "Messenger knows no such contact of the Page: the id is wrong, or another Page's."
        }
        (BAD_PARAMETER, Some(sub::NO_SUCH_OBJECT | sub::INCORRECT_APP_ID)) => {
            "Messenger knows no such contact for this app and Page, or the app may not see it."
        }
        (
            BAD_PARAMETER,
            Some(
                sub::FILE_NOT_FETCHED
                | sub::UPLOAD_FAILED
                | sub::INVALID_ATTACHMENT_ID
                | sub::ATTACHMENT_TOO_LARGE
                | sub::VIDEO_NOT_UPLOADED,
            ),
        ) => "Messenger could not take the attachment of the message.",
        (BAD_PARAMETER, Some(sub::INVALID_PRODUCT_ID | sub::INVALID_MESSAGE_DATA)) => {
            "Messenger refuses the content of the message."
        }
        (BAD_PARAMETER, _) => "Messenger refuses a value of the call, in most cases the id of the contact.",
        (CAPABILITY | PERMISSION_DENIED | PERMISSION..=LAST_PERMISSION, _) => {
            "The app or the Page lacks a permission to send to the contact."
        }
        (APP_LIMIT, Some(sub::MARKETING_MESSAGE_TOO_SOON)) | (CONVERSATION_GAP, _) => {
            "The contact got another marketing message too short a time before."
        }
        (TOO_MANY_ACTIONS, Some(sub::OPT_IN_REQUEST_LIMIT)) | (RATE_LIMIT, Some(sub::OPT_IN_REQUEST_REPEATED)) => {
            "The contact was asked to opt in too often."
        }
        (THREAD_OF_ANOTHER_APP, _) => "Another app controls the conversation with the contact.",
        (THREAD_IN_AUTOMATED_FLOW, _) => "Messenger's automated questions control the conversation with the contact.",
        (UNKNOWN | SERVICE | TEMPORARY_SEND_FAILURE, _) => "Messenger reported a temporary fault of its own.",
        _ => "Messenger answered with an error that is not known.",
    }
}

//! The codes and subcodes of Messenger's errors, each with Meta's text in short, by the page of Meta that lists it.
//!
//! Codes are `error.code`; subcodes are `error.error_subcode`, which qualifies a code.

// Codes, from <https://developers.facebook.com/documentation/business-messaging/messenger-platform/error-codes>.

/// "Application request limit reached", or "Too many send requests to phone numbers".
pub(super) const APP_LIMIT: i64 = 4;
/// "User is performing too many actions".
pub(super) const TOO_MANY_ACTIONS: i64 = 9;
/// "Invalid FBID", "No matching user found", or a notification token that "is invalid" or "has expired". Since 27 April 2026
/// also the answer to every message with a withdrawn tag.
pub(super) const BAD_PARAMETER: i64 = 100;
/// "Invalid OAuth access token".
pub(super) const INVALID_ACCESS_TOKEN: i64 = 190;
/// "This person isn't receiving messages from you right now".
pub(super) const USER_BLOCK: i64 = 551;
/// "Calls to this api have exceeded the rate limit".
pub(super) const RATE_LIMIT: i64 = 613;
/// "The ability to send commerce messages has been temporarily disabled", after a policy violation.
pub(super) const COMMERCE_MESSAGES_DISABLED: i64 = 2_022;
/// "Another app is controlling this thread now".
pub(super) const THREAD_OF_ANOTHER_APP: i64 = 2_018_300;
/// "The chat is currently controlled by Messenger", in an automated question and answer flow.
pub(super) const THREAD_IN_AUTOMATED_FLOW: i64 = 2_018_321;

// A code, from <https://developers.facebook.com/docs/messenger-platform/identity/user-profile>. It is seen as a subcode, too.

/// "No profile available for this user": an account that was made with a phone number.
pub(super) const NO_PROFILE: i64 = 2_018_218;

// Codes, from <https://developers.facebook.com/docs/graph-api/guides/error-handling>.

/// "API Unknown": "possibly a temporary issue due to downtime". Subcode 1357046 is documented for messages that were sent.
pub(super) const UNKNOWN: i64 = 1;
/// "API Service": a temporary issue; Messenger gives it also for a contact that has blocked the Page.
pub(super) const SERVICE: i64 = 2;
/// "Capability or permissions issue".
pub(super) const CAPABILITY: i64 = 3;
/// "API Permission Denied".
pub(super) const PERMISSION_DENIED: i64 = 10;
/// "API Session": the login status or access token is not valid.
pub(super) const SESSION: i64 = 102;
/// "Permission is either not granted or has been removed": the first code of the range.
pub(super) const PERMISSION: i64 = 200;
/// The last code of the range that begins with [`PERMISSION`].
pub(super) const LAST_PERMISSION: i64 = 299;
/// "Application limit reached", a temporary issue due to downtime or throttling.
pub(super) const APP_LIMIT_TEMPORARY: i64 = 341;
/// "Temporarily blocked for policies violations".
pub(super) const BLOCKED_FOR_POLICIES: i64 = 368;

// A code, from <https://developers.facebook.com/docs/messenger-platform/reference/send-api/error-codes>, an older page.

/// "Temporary send message failure. Please try again later".
pub(super) const TEMPORARY_SEND_FAILURE: i64 = 1_200;

// Codes of the Graph API that Meta's pages list no more, or show in examples only. Each refuses the call itself: its origin,
// path, version, token or proof, which are the same for every contact of a Page.

/// "Unauthorized source IP address": the app's settings allow other addresses only.
pub(super) const UNAUTHORIZED_ADDRESS: i64 = 5;
/// "This method requires an HTTPS connection".
pub(super) const HTTPS_REQUIRED: i64 = 8;
/// "This method is deprecated".
pub(super) const METHOD_DEPRECATED: i64 = 11;
/// "This API version is deprecated": the version in the URL.
pub(super) const VERSION_DEPRECATED: i64 = 12;
/// "This method call must be signed with the application secret".
pub(super) const PROOF_REQUIRED: i64 = 15;
/// "Page ID was migrated to page ID": the Page has another id now.
pub(super) const PAGE_MIGRATED: i64 = 21;
/// "Error validating application": the token's app does not exist or is not available.
pub(super) const INVALID_APP: i64 = 101;
/// "Incorrect signature": the signature or proof of the call is wrong.
pub(super) const INCORRECT_SIGNATURE: i64 = 104;
/// "Some of the aliases you requested do not exist": the Page's id in the path.
pub(super) const NO_SUCH_ALIAS: i64 = 803;
/// "Unknown path components", or "An active access token must be used".
pub(super) const UNKNOWN_PATH: i64 = 2_500;
/// "User Access Token Is Not Supported": a Page access token is required.
pub(super) const USER_TOKEN: i64 = 2_069_032;

// Codes, from <https://developers.facebook.com/docs/graph-api/overview/rate-limiting>.

/// "User request limit reached".
pub(super) const USER_LIMIT: i64 = 17;
/// The request limit of a Page with a user or app token.
pub(super) const PAGE_LIMIT: i64 = 32;
/// The Business Use Case limit of calls with a Page or system token.
pub(super) const PAGES_USE_CASE_LIMIT: i64 = 80_001;
/// The Business Use Case limit of Messenger.
pub(super) const MESSENGER_USE_CASE_LIMIT: i64 = 80_006;

// A code, from
// <https://developers.facebook.com/documentation/business-messaging/messenger-platform/marketing-messages-on-messenger>.

/// A Marketing Message within `min_conversation_gap_seconds` of the last message of the conversation.
pub(super) const CONVERSATION_GAP: i64 = 2_300_052;

/// Subcodes, from <https://developers.facebook.com/documentation/business-messaging/messenger-platform/error-codes>.
pub(super) mod sub {
    // Subcodes of `APP_LIMIT`.

    /// "There has to be a minimum delay between 2 notifications".
    pub const MARKETING_MESSAGE_TOO_SOON: i64 = 2_018_354;

    // Subcodes of `TOO_MANY_ACTIONS`.

    /// "The Marketing Message opt-in request limit has been exceeded".
    pub const OPT_IN_REQUEST_LIMIT: i64 = 2_018_352;

    // Subcodes of `PERMISSION_DENIED`.

    /// "This message is sent outside of allowed window".
    pub const OUTSIDE_WINDOW: i64 = 2_018_278;
    /// "This message is sent outside of allowed window": 24 hours since the customer's message.
    pub const OUTSIDE_24_HOURS: i64 = 2_534_022;
    /// "This message is sent outside of allowed window. You need News Messaging permission".
    pub const OUTSIDE_WINDOW_OF_NEWS: i64 = 2_018_065;
    /// "They can't receive your messages right now".
    pub const CANNOT_RECEIVE: i64 = 2_018_108;
    /// "This user has currently stopped notification messages for this topic".
    pub const TOPIC_STOPPED: i64 = 1_893_015;
    /// "User Thread Impact".
    pub const THREAD_IMPACTED: i64 = 2_018_336;
    /// "You are temporarily restricted from sending messages".
    pub const PAGE_RESTRICTED: i64 = 1_893_063;
    /// "Application does not have permission for this action": the Page may not send opt-in requests for a while.
    pub const OPT_IN_REQUESTS_RESTRICTED: i64 = 1_404_170;

    // Subcodes of `BAD_PARAMETER`.

    /// "Object with ID does not exist, cannot be loaded due to missing permissions, or does not support this operation".
    pub const NO_SUCH_OBJECT: i64 = 33;
    /// "No matching user found".
    pub const NO_MATCHING_USER: i64 = 2_018_001;
    /// "Failed to fetch the file from the url".
    pub const FILE_NOT_FETCHED: i64 = 2_018_008;
    /// "Upload attachment failure", for example when the media type is not that of the file.
    pub const UPLOAD_FAILED: i64 = 2_018_047;
    /// "Possible invalid ID or you do not own the attachment".
    pub const INVALID_ATTACHMENT_ID: i64 = 2_018_074;
    /// "Attachment size exceeds allowable limit".
    pub const ATTACHMENT_TOO_LARGE: i64 = 2_018_109;
    /// "Incorrect App ID".
    pub const INCORRECT_APP_ID: i64 = 2_018_164;
    /// "Video upload timed out or video is corrupted".
    pub const VIDEO_NOT_UPLOADED: i64 = 2_018_294;
    /// "Invalid product id".
    pub const INVALID_PRODUCT_ID: i64 = 2_018_320;
    /// "Invalid message data".
    pub const INVALID_MESSAGE_DATA: i64 = 2_534_015;

    // Subcodes of `PERMISSION` and `USER_BLOCK`.

    /// "This person isn't available right now".
    pub const NOT_AVAILABLE: i64 = 1_545_041;

    // Subcodes of `RATE_LIMIT`.

    /// "You may not send multiple opt-in requests with the same topic to a user".
    pub const OPT_IN_REQUEST_REPEATED: i64 = 1_893_016;
    /// "You are engaging in behavior that may be considered bothersome or abusive by users".
    pub const ABUSIVE: i64 = 2_018_338;
}

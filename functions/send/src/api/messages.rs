//! The forms of a message, as Messenger has them, for the document: a request keeps the parts of a message as they are, in
//! [`Message`](shared::domain::message::Message).

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// Messenger's message object: a text, an attachment or a template. Only a text is rendered for each contact.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(examples(
    json!({"text": "Hi {{ first_name | default('there') }}, we open at nine."}),
    json!({"attachment": {"type": "image", "payload": {"attachment_id": "1857777774821032"}}}),
    json!({"template": {"name": "order_update", "language": {"code": "en"}}})
))]
pub enum MessageForm {
    /// A text.
    Text(TextMessage),
    /// A file, picture, audio or video, or one of Messenger's own templates.
    Attachment(AttachmentMessage),
    /// A template that Meta has approved.
    Template(TemplateMessage),
}

/// A text, rendered for each contact.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TextMessage {
    /// The text. Its variables are `contact_id`, `first_name`, `last_name`, `name`, `locale`, `timezone`, `tags` and
    /// `attributes.NAME`, each written `{{ first_name | default('there') }}`. A rendered text has at most 1,999 UTF-16 units.
    #[schema(min_length = 1, examples("Hi {{ first_name | default('there') }}, we open at nine."))]
    pub text: String,
    /// The replies that the contact can tap on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 13)]
    pub quick_replies: Option<Vec<QuickReply>>,
}

/// An attachment, by URL or by the id of an upload, or one of Messenger's own templates.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AttachmentMessage {
    /// The attachment.
    pub attachment: Attachment,
    /// The replies that the contact can tap on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 13)]
    pub quick_replies: Option<Vec<QuickReply>>,
}

/// An approved template, which goes with `"messaging_type": "UTILITY"`.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TemplateMessage {
    /// The template.
    pub template: ApprovedTemplate,
}

/// An attachment.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Attachment {
    /// A file.
    Media(Media),
    /// One of Messenger's own templates.
    Template(OwnTemplate),
}

/// A file, picture, audio or video.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Media {
    /// The kind of file.
    #[serde(rename = "type")]
    pub kind: MediaKind,
    /// The file itself.
    pub payload: MediaSource,
}

/// A file by URL or, better, by the id of an upload: Messenger takes longer to fetch a film than a send may take.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum MediaSource {
    /// A file that Messenger fetches.
    Url(MediaUrl),
    /// A file that was uploaded to Messenger before.
    Upload(MediaUpload),
}

/// The kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MediaKind {
    /// A sound.
    Audio,
    /// Any file.
    File,
    /// A picture.
    Image,
    /// A film.
    Video,
}

/// A file that Messenger fetches.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MediaUrl {
    /// An http or https URL.
    #[schema(max_length = 1_000, pattern = "^https?://", examples("https://example.com/menu.png"))]
    pub url: String,
    /// True if Messenger shall keep the file for other messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_reusable: Option<bool>,
}

/// A file that was uploaded to Messenger before.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MediaUpload {
    /// The id that Messenger gave the upload.
    #[schema(min_length = 1, max_length = 1_000, examples("1857777774821032"))]
    pub attachment_id: String,
    /// True if Messenger shall keep the file for other messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_reusable: Option<bool>,
}

/// One of Messenger's own templates.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OwnTemplate {
    /// Always `template`.
    #[serde(rename = "type")]
    pub kind: OwnTemplateKind,
    /// The template, as Messenger describes it.
    pub payload: OwnTemplatePayload,
}

/// The kind of an attachment that is one of Messenger's own templates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OwnTemplateKind {
    /// The only kind.
    Template,
}

/// One of Messenger's own templates. It has other fields, which Messenger checks.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(examples(json!({
    "template_type": "button", "text": "The menu of today",
    "buttons": [{"type": "web_url", "url": "https://example.com/menu", "title": "Menu"}]
})))]
pub struct OwnTemplatePayload {
    /// Messenger's name for the kind of template, such as `button` or `generic`.
    pub template_type: String,
    /// The other fields.
    #[serde(flatten)]
    pub others: BTreeMap<String, Value>,
}

/// A template that Meta has approved.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({
    "name": "order_update", "language": {"code": "en"},
    "components": [{"type": "body", "parameters": [{"type": "text", "text": "A-17"}]}]
})))]
pub struct ApprovedTemplate {
    /// The name under which Meta approved it.
    #[schema(min_length = 1, max_length = 1_000)]
    pub name: String,
    /// The language.
    pub language: TemplateLanguage,
    /// The values of the template, as Messenger describes them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    pub components: Option<Vec<Value>>,
}

/// The language of a template.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TemplateLanguage {
    /// The code of the language, and of the country if needed.
    #[schema(min_length = 1, max_length = 20, examples("en_US"))]
    pub code: String,
}

/// A reply that the contact can tap on.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum QuickReply {
    /// A reply with a title of its own.
    Text(TextReply),
    /// The contact's own e-mail address or phone number, which Messenger fills in.
    Personal(PersonalReply),
}

/// A quick reply with a title of its own.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"content_type": "text", "title": "Yes", "payload": "YES"})))]
pub struct TextReply {
    /// Always `text`.
    pub content_type: TextReplyKind,
    /// The title that the contact sees.
    #[schema(min_length = 1, max_length = 20)]
    pub title: String,
    /// The value that Messenger reports if the contact taps on it.
    #[schema(min_length = 1, max_length = 1_000)]
    pub payload: String,
    /// The http or https URL of a small picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1_000, pattern = "^https?://")]
    pub image_url: Option<String>,
}

/// The kind of a quick reply with a title of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TextReplyKind {
    /// The only kind.
    Text,
}

/// A quick reply that Messenger fills in.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"content_type": "user_email"})))]
pub struct PersonalReply {
    /// The value that Messenger fills in.
    pub content_type: PersonalReplyKind,
}

/// The values that Messenger fills in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PersonalReplyKind {
    /// The contact's e-mail address.
    UserEmail,
    /// The contact's phone number.
    UserPhoneNumber,
}

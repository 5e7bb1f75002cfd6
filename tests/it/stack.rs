//! The fixture: the three functions in this process, over the real local DynamoDB and SQS, with the sandbox for Messenger.
//!
//! Each stack has tables, queues and a sandbox of its own, and a clock that a test may set ahead. When it is dropped it
//! checks the promise: nobody got a message twice, and every accepted contact is in exactly one place.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write as _;
use std::sync::Mutex;
use std::time::Duration;

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_sqs::types::Message;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use lambda_http::aws_lambda_events::apigw::ApiGatewayV2httpRequestContext;
use lambda_http::request::RequestContext;
use local::clients;
use local::database::Database;
use local::queue::Queue;
use local::resources::{Names, QueueUrls, create_queues, create_tables};
use local::sandbox::Sandbox;
use serde_json::{Value, json};
use shared::app::App;
use shared::clock::Clock;
use shared::config::Config;
use shared::delivery::{Delivery, State, Status};
use shared::ids::{BroadcastId, ContactId, JobId};
use shared::job::{Job, JobStatus};
use shared::store::deliveries::Metadata;
use tempfile::NamedTempFile;
use tower::ServiceExt;

use crate::leaks;
use crate::permissions::{self, Calls};
use crate::proxy::{self, Fate};

/// The Pages that have a token.
pub const PAGES: [&str; 3] = ["page-1", "page-2", "page-3"];
/// A Page that has none.
pub const PAGE_WITHOUT_TOKEN: &str = "page-without-token";
/// The text of every broadcast that does not say otherwise.
pub const TEXT: &str = "Hi {{ first_name | default('there') }}, we open at nine.";
/// What webhooks are signed with.
pub const APP_SECRET: &str = "the-secret-of-the-app";
/// What Meta must know to subscribe.
pub const VERIFY_TOKEN: &str = "the-verify-token";
/// For where Messenger does not answer: long enough for an answer on a busy machine.
pub const IMPATIENT: (&str, &str) = ("MESSENGER_TIMEOUT_SECONDS", "3");
/// Signs what is called in place of a function.
pub const TEST: &str = "test";
/// Where nobody listens.
const NOBODY: &str = "http://127.0.0.1:1";
/// Deliveries of a job that are looked at in one go.
const ALL: i32 = 1_000;

pub struct Stack {
    pub app: App,
    pub sandbox: Sandbox,
    /// What the three functions have called.
    pub calls: Calls,
    router: Router,
    send: App,
    process_job: App,
    scheduled: App,
    /// Of the services themselves, whatever stands between them and the functions.
    endpoints: Endpoints,
    dynamodb: aws_sdk_dynamodb::Client,
    sqs: aws_sdk_sqs::Client,
    queues: QueueUrls,
    broadcasts: Mutex<BTreeSet<BroadcastId>>,
    // What ends with the stack.
    _database: Option<Database>,
    _queue: Option<Queue>,
    secrets: [NamedTempFile; 3],
}

/// What a stack runs on.
pub struct Services {
    pub endpoints: Endpoints,
    pub sandbox: Sandbox,
    pub clock: Clock,
    /// Others' tables and queues are there, too.
    shared: bool,
    database: Option<Database>,
    queue: Option<Queue>,
}

/// Where services are reached.
#[derive(Clone, Debug)]
pub struct Endpoints {
    pub dynamodb: String,
    pub sqs: String,
    /// None of its own: nobody asks for a parameter unless a test says where there are any.
    pub ssm: String,
    pub graph: String,
}

impl Services {
    /// Services of the stack's own; or those that the AWS SDK's own variables name, which all stacks share.
    pub async fn start() -> Self {
        let named = |variable| std::env::var(variable).ok();
        let clock = Clock::default();
        let sandbox = Sandbox::start_by(tokens_of_sandbox(), clock.clone());
        let sandbox = sandbox.await.unwrap();
        let (named_dynamodb, named_sqs) = (
            named("AWS_ENDPOINT_URL_DYNAMODB"),
            named("AWS_ENDPOINT_URL_SQS"),
        );
        let database = match named_dynamodb {
            None => Some(Database::start().unwrap()),
            Some(_) => None,
        };
        let queue = match named_sqs {
            None => Some(Queue::start().unwrap()),
            Some(_) => None,
        };
        let own_dynamodb = database.as_ref().map(|own| own.endpoint().to_owned());
        let own_sqs = queue.as_ref().map(|own| own.endpoint().to_owned());
        Self {
            shared: database.is_none() || queue.is_none(),
            endpoints: Endpoints {
                dynamodb: own_dynamodb.or(named_dynamodb).unwrap(),
                sqs: own_sqs.or(named_sqs).unwrap(),
                ssm: NOBODY.to_owned(),
                graph: sandbox.url(),
            },
            sandbox,
            clock,
            database,
            queue,
        }
    }
}

/// What the API answered.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub replayed: bool,
    pub body: Value,
}

impl Answer {
    pub fn broadcast_id(&self) -> BroadcastId {
        let id = self.body["broadcast_id"].as_str();
        BroadcastId::parse(id.unwrap_or_else(|| panic!("no broadcast: {self:?}"))).unwrap()
    }
}

impl Stack {
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With variables of its own besides those that make tests quick.
    pub async fn with(variables: &[(&str, &str)]) -> Self {
        let services = Services::start().await;
        let endpoints = services.endpoints.clone();
        Self::over(services, &endpoints, variables).await
    }

    /// Whose way to the database asks `hook` about every call.
    pub async fn over_a_bad_way(
        hook: impl Fn(&str) -> Fate + Send + Sync + 'static,
        variables: &[(&str, &str)],
    ) -> Self {
        let services = Services::start().await;
        let endpoints = Endpoints {
            dynamodb: proxy::start(&services.endpoints.dynamodb, hook).await,
            ..services.endpoints.clone()
        };
        Self::over(services, &endpoints, variables).await
    }

    /// Over services that the functions reach at these endpoints.
    pub async fn over(
        services: Services,
        endpoints: &Endpoints,
        variables: &[(&str, &str)],
    ) -> Self {
        leaks::search_logs();
        let names = match services.shared {
            true => Names::with_prefix(&shared::ids::token()),
            false => Names::default(),
        };
        let dynamodb = clients::dynamodb(&services.endpoints.dynamodb);
        let sqs = clients::sqs(&services.endpoints.sqs);
        create_tables(&dynamodb, &names).await.unwrap();
        let queues = create_queues(&sqs, &names, Duration::from_secs(150))
            .await
            .unwrap();

        let tokens = tokens(&PAGES);
        let token_file = secret_file(&json!(tokens).to_string());
        let app_secret = secret_file(APP_SECRET);
        let verify_token = secret_file(VERIFY_TOKEN);
        let file = |file: &NamedTempFile| format!("file:{}", file.path().display());

        let mut environment = BTreeMap::from([
            ("BROADCASTS_TABLE", names.broadcasts),
            ("DELIVERIES_TABLE", names.deliveries),
            ("CONTACTS_TABLE", names.contacts),
            ("JOBS_QUEUE_URL", queues.jobs.clone()),
            ("GRAPH_API_URL", endpoints.graph.clone()),
            ("PAGE_TOKENS", file(&token_file)),
            ("APP_SECRET", file(&app_secret)),
            ("WEBHOOK_VERIFY_TOKEN", file(&verify_token)),
            ("PAGE_RATE_PER_SECOND", "1000".to_owned()),
            ("INLINE_LIMIT", "0".to_owned()),
        ]);
        environment.extend(
            variables
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned())),
        );
        let config = Config::from_variables(|name| environment.get(name).cloned()).unwrap();
        // Each function signs with a key of its own, and so does a test in their place.
        let calls = Calls::default();
        let app = |key: &str| {
            let dynamodb = clients::dynamodb_config(key, &endpoints.dynamodb);
            let sqs = clients::sqs_config(key, &endpoints.sqs);
            let ssm = clients::ssm_config(key, &endpoints.ssm);
            let app = App::new(
                config.clone(),
                aws_sdk_dynamodb::Client::from_conf(dynamodb.interceptor(calls.clone()).build()),
                aws_sdk_sqs::Client::from_conf(sqs.interceptor(calls.clone()).build()),
                aws_sdk_ssm::Client::from_conf(ssm.interceptor(calls.clone()).build()),
                services.clock.clone(),
            );
            app.unwrap()
        };
        let send = app("send");
        Self {
            router: send::router(std::sync::Arc::new(send.clone())),
            send,
            process_job: app("process-job"),
            scheduled: app("scheduled"),
            app: app(TEST),
            calls,
            sandbox: services.sandbox,
            endpoints: services.endpoints,
            dynamodb,
            sqs,
            queues,
            broadcasts: Mutex::default(),
            _database: services.database,
            _queue: services.queue,
            secrets: [token_file, app_secret, verify_token],
        }
    }

    /// Another process of the same functions, which reaches its services at these endpoints.
    pub fn another_app(&self, endpoints: &Endpoints) -> App {
        let config = Config {
            graph_api_url: endpoints.graph.clone(),
            ..self.app.config.clone()
        };
        App::new(
            config,
            clients::dynamodb(&endpoints.dynamodb),
            clients::sqs(&endpoints.sqs),
            clients::ssm(&endpoints.ssm),
            self.app.clock.clone(),
        )
        .unwrap()
    }

    /// Where the services themselves are.
    pub fn services(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Sets the clock of all functions ahead.
    pub fn advance(&self, by: Duration) {
        self.app
            .clock
            .advance(SignedDuration::try_from(by).unwrap());
    }

    /// Gives a Page its token, in the operator's file.
    pub fn give_token(&self, page: &str) {
        let pages = [&PAGES[..], &[page]].concat();
        let [token_file, ..] = &self.secrets;
        std::fs::write(token_file.path(), json!(tokens(&pages)).to_string()).unwrap();
    }

    // What a caller does.

    pub async fn call(
        &self,
        method: &str,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        self.json(request.body(body).unwrap()).await
    }

    /// A call by somebody whom API Gateway has found out to be this.
    pub async fn call_by(
        &self,
        authorizer: &Value,
        call: (&str, &str),
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Answer {
        let (method, path) = call;
        let context = json!({
            "authorizer": authorizer,
            "http": {"method": method, "path": path},
            "timeEpoch": self.app.clock.now().as_millisecond(),
        });
        let context = serde_json::from_value(context).unwrap();
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .extension(RequestContext::ApiGatewayV2(context));
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        self.json(request.body(body).unwrap()).await
    }

    /// Imports contacts as a body of this type.
    pub async fn import_as(&self, content_type: &str, body: impl Into<Body>) -> Answer {
        let request = Request::put("/v1/contacts").header("content-type", content_type);
        self.json(request.body(body.into()).unwrap()).await
    }

    async fn json(&self, request: Request<Body>) -> Answer {
        let is_post = request.method() == "POST";
        let answer = self.raw(request).await;
        let answer = Answer {
            status: answer.status(),
            replayed: answer.headers().contains_key("idempotent-replayed"),
            body: match answer.body() {
                body if body.is_empty() => Value::Null,
                body => serde_json::from_slice(body).unwrap(),
            },
        };
        if is_post && answer.status.is_success() {
            self.broadcasts
                .lock()
                .unwrap()
                .insert(answer.broadcast_id());
        }
        answer
    }

    /// A request as it stands, and its answer.
    pub async fn raw(&self, request: Request<Body>) -> Response<Bytes> {
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = answer.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let text = String::from_utf8_lossy(&body);
        assert_eq!(leaks::secret_in(&text), None, "in the answer: {text}");
        Response::from_parts(head, body)
    }

    /// Asks for CSV, as a caller who takes other things too.
    pub async fn csv(&self, path: &str) -> Response<Bytes> {
        let request = Request::get(path).header("accept", "text/html, Text/CSV;q=0.9");
        self.raw(request.body(Body::empty()).unwrap()).await
    }

    /// Imports contacts of a Page by their ids.
    pub async fn import(&self, page_id: &str, ids: &[String]) {
        for ids in ids.chunks(1_000) {
            let contacts: Vec<_> = ids
                .iter()
                .map(|id| json!({"contact_id": id, "page_id": page_id, "first_name": format!("Nr {id}")}))
                .collect();
            let answer = self
                .call(
                    "PUT",
                    "/v1/contacts",
                    None,
                    Some(&json!({"contacts": contacts})),
                )
                .await;
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        }
    }

    /// Imports `n` contacts of the first Page.
    pub async fn contacts(&self, n: usize) -> Vec<String> {
        let ids: Vec<_> = (0..n).map(|n| format!("c{n:05}")).collect();
        self.import(PAGES[0], &ids).await;
        ids
    }

    pub async fn post(&self, body: &Value) -> Answer {
        self.call("POST", "/v1/broadcasts", None, Some(body)).await
    }

    pub async fn post_with_key(&self, key: &str, body: &Value) -> Answer {
        self.call("POST", "/v1/broadcasts", Some(key), Some(body))
            .await
    }

    /// Asks for a broadcast in a request that API Gateway received at this time.
    pub async fn post_at(&self, received: Timestamp, body: &Value) -> Answer {
        let mut context = ApiGatewayV2httpRequestContext::default();
        context.time_epoch = received.as_millisecond();
        let request = Request::post("/v1/broadcasts")
            .header("content-type", "application/json")
            .extension(RequestContext::ApiGatewayV2(context));
        self.json(request.body(Body::from(body.to_string())).unwrap())
            .await
    }

    /// Asks for a broadcast to these contacts, which must be accepted.
    pub async fn broadcast(&self, ids: &[String]) -> BroadcastId {
        let answer = self.post(&request(ids)).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
        answer.broadcast_id()
    }

    pub async fn report(&self, id: &BroadcastId) -> Value {
        let answer = self
            .call("GET", &format!("/v1/broadcasts/{id}"), None, None)
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        answer.body
    }

    /// All deliveries of a broadcast, page by page, as the API lists them.
    pub async fn deliveries(&self, id: &BroadcastId, filter: &str) -> Vec<Value> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/v1/broadcasts/{id}/deliveries?limit=1000{filter}{cursor}");
            let mut answer = self.call("GET", &path, None, None).await;
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
            items.append(answer.body["items"].as_array_mut().unwrap());
            let Some(next) = answer.body["next_cursor"].as_str() else {
                return items;
            };
            cursor = format!("&cursor={next}");
        }
    }

    // What Messenger does of its own accord.

    /// Delivers a webhook with these events of a Page, signed as Meta signs.
    pub async fn webhook(&self, page: &str, events: &[Value]) -> StatusCode {
        let body =
            json!({"object": "page", "entry": [{"id": page, "time": 0, "messaging": events}]});
        self.signed_webhook(&body.to_string(), APP_SECRET).await
    }

    pub async fn signed_webhook(&self, body: &str, secret: &str) -> StatusCode {
        let signature = shared::secrets::signature(&secret.into(), body.as_bytes()).unwrap();
        let request = Request::post("/v1/webhooks/messenger")
            .header("x-hub-signature-256", format!("sha256={signature}"));
        self.raw(request.body(Body::from(body.to_owned())).unwrap())
            .await
            .status()
    }

    /// The echo of an attempt to send to a contact of the first Page.
    pub async fn echo(
        &self,
        id: &BroadcastId,
        contact_id: &str,
        attempt: u32,
        message_id: &str,
    ) -> StatusCode {
        let page = PAGES[0];
        let event = json!({
            "sender": {"id": page}, "recipient": {"id": contact_id}, "timestamp": 0,
            "message": {
                "is_echo": true, "app_id": 1, "mid": message_id,
                "metadata": format!("oncecast/1 {id} {page} {attempt} {contact_id}"),
            },
        });
        self.webhook(page, &[event]).await
    }

    // What AWS does.

    /// One hint from the queue, hidden from others as process-job's event source would.
    pub async fn receive(&self) -> Option<Hint> {
        let received = self
            .sqs
            .receive_message()
            .queue_url(&self.queues.jobs)
            .send()
            .await
            .unwrap();
        received.messages.unwrap_or_default().pop().map(Hint)
    }

    pub async fn delete(&self, hint: &Hint) {
        let handle = hint.0.receipt_handle.clone().unwrap();
        self.sqs
            .delete_message()
            .queue_url(&self.queues.jobs)
            .receipt_handle(handle)
            .send()
            .await
            .unwrap();
    }

    /// A hint for the only job of a broadcast, whatever the queue holds.
    pub async fn hint_for(&self, id: &BroadcastId) -> Hint {
        Hint::new(&serde_json::to_string(&self.job(id).await.id()).unwrap())
    }

    /// Invokes process-job with a hint, for as long as the two minutes of its time-out.
    pub async fn process_job(&self, hint: &Hint) -> SqsBatchResponse {
        self.process_job_for(hint, Duration::from_secs(120)).await
    }

    pub async fn process_job_for(&self, hint: &Hint, time: Duration) -> SqsBatchResponse {
        let mut context = lambda_runtime::Context::default();
        context.deadline = u64::try_from((Timestamp::now() + time).as_millisecond()).unwrap();
        process_job::handle(&self.process_job, hint.event(), &context).await
    }

    pub async fn scheduled(&self) {
        let ends = tokio::time::Instant::now() + Duration::from_secs(30);
        scheduled::handle(&self.scheduled, ends).await.unwrap();
    }

    /// Works off hints until there are none.
    pub async fn work_off(&self) {
        while let Some(hint) = self.receive().await {
            let answer = self.process_job(&hint).await;
            assert!(answer.batch_item_failures.is_empty(), "{answer:?}");
            self.delete(&hint).await;
        }
    }

    /// Goes on as time does until the broadcast is completed, or halted.
    pub async fn finish(&self, id: &BroadcastId) -> Value {
        for _ in 0..50 {
            self.work_off().await;
            let report = self.report(id).await;
            if ["completed", "halted"].contains(&report["status"].as_str().unwrap()) {
                return report;
            }
            self.advance(Duration::from_secs(200));
            self.scheduled().await;
        }
        panic!("never completed: {:#}", self.report(id).await)
    }

    // What a test does in place of a worker.

    /// Sends a message to a contact of the first Page as a worker would; its id.
    pub async fn deliver_by_hand(&self, id: &BroadcastId, contact_id: &str) -> String {
        let body = json!({
            "recipient": {"id": contact_id},
            "messaging_type": "UPDATE",
            "message": {"text": TEXT, "metadata": format!("oncecast/1 {id} {} 1 {contact_id}", PAGES[0])},
        });
        let call =
            reqwest::Client::new().post(format!("{}/{}/messages", self.sandbox.url(), PAGES[0]));
        let call = call
            .bearer_auth(format!("EAAB-{}", PAGES[0]))
            .header("content-type", "application/json");
        let answer = call
            .body(body.to_string())
            .send()
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        answer["message_id"].as_str().unwrap().to_owned()
    }

    /// Puts a delivery back in line, as an operator's retry will.
    pub async fn write_waiting_by_hand(&self, job: &JobId, contact_id: &str) {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let call = self.dynamodb.update_item();
        call.table_name(&self.app.config.deliveries_table)
            .key("job", text(&job.to_string()))
            .key("contact_id", text(contact_id))
            .update_expression("SET #status = :waiting, not_before = :zero, reason = :waiting")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":waiting", text("waiting"))
            .expression_attribute_values(":zero", AttributeValue::N("0".to_owned()))
            .send()
            .await
            .unwrap();
    }

    /// Adds attributes to every item that has none of them yet, as a later version would.
    pub async fn write_more_by_hand(&self, more: &HashMap<String, AttributeValue>) {
        let config = &self.app.config;
        for (table, key) in [
            (&config.broadcasts_table, &["pk", "sk"][..]),
            (&config.deliveries_table, &["job", "contact_id"]),
            (&config.contacts_table, &["contact_id"]),
        ] {
            let scan = self.dynamodb.scan().table_name(table).into_paginator();
            let items: Vec<_> = scan.items().send().try_collect().await.unwrap();
            for mut item in items {
                if more.keys().all(|name| item.contains_key(name)) {
                    continue;
                }
                item.extend(more.clone());
                let key = key
                    .iter()
                    .map(|name| ((*name).to_owned(), item[*name].clone()));
                let mut update = self.dynamodb.update_item().table_name(table);
                update = update.set_key(Some(key.collect()));
                let mut set = Vec::new();
                for (n, (name, value)) in more.iter().enumerate() {
                    update = update
                        .expression_attribute_names(format!("#n{n}"), name)
                        .expression_attribute_values(format!(":v{n}"), value.clone());
                    set.push(format!("#n{n} = :v{n}"));
                }
                let update = update.update_expression(format!("SET {}", set.join(", ")));
                update.send().await.unwrap();
            }
        }
    }

    /// Writes the row of a contact that was skipped for this reason.
    pub async fn write_skipped_by_hand(&self, job: &JobId, contact_id: &str, reason: &str) {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let number = |number: u32| AttributeValue::N(number.to_string());
        let call = self.dynamodb.put_item();
        call.table_name(&self.app.config.deliveries_table)
            .item("job", text(&job.to_string()))
            .item("contact_id", text(contact_id))
            .item("status", text("skipped"))
            .item("reason", text(reason))
            .item("token", text("by hand"))
            .item("epoch", number(1))
            .item("attempts", number(1))
            .item("reserved_at", number(0))
            .item("updated_at", number(0))
            .send()
            .await
            .unwrap();
    }

    /// Deletes a segment, as time to live does.
    pub async fn lose_segment(&self, snapshot: &str, number: u32) {
        let text = AttributeValue::S;
        let call = self.dynamodb.delete_item();
        call.table_name(&self.app.config.broadcasts_table)
            .key("pk", text(format!("segments#{snapshot}")))
            .key("sk", text(format!("{number:06}")))
            .send()
            .await
            .unwrap();
    }

    /// Has no broadcast checked at the end: their tables are not what the protocol makes of them.
    pub fn forget_broadcasts(&self) {
        self.broadcasts.lock().unwrap().clear();
    }

    // What was really received.

    /// How many messages each contact got of a broadcast, by the sandbox's ledger.
    pub fn received(&self, id: &BroadcastId) -> BTreeMap<String, usize> {
        let mut received = BTreeMap::new();
        for message in self.sandbox.received() {
            if message.metadata.unwrap().contains(&id.to_string()) {
                *received.entry(message.contact_id).or_default() += 1;
            }
        }
        received
    }

    /// What echoes tell of the messages that were really received of a broadcast: which delivery each was for, and its id.
    pub fn echoes(&self, id: &BroadcastId) -> Vec<(Metadata, String)> {
        let received = self.sandbox.received().into_iter();
        received
            .filter_map(|message| Some((Metadata::parse(&message.metadata?)?, message.message_id)))
            .filter(|(metadata, _)| metadata.job.broadcast_id == *id)
            .collect()
    }

    /// All that the tables hold.
    pub async fn stored(&self) -> Vec<HashMap<String, AttributeValue>> {
        stored(&self.dynamodb, &self.app.config).await
    }

    /// What has been counted since this was asked last.
    pub fn metrics(&self) -> Vec<Value> {
        let apps = [&self.send, &self.process_job, &self.scheduled, &self.app].into_iter();
        apps.flat_map(|app| app.metrics.take(None, app.clock.now()))
            .collect()
    }

    pub async fn job(&self, id: &BroadcastId) -> Job {
        let mut jobs = jobs(&self.app, id).await;
        assert_eq!(jobs.len(), 1);
        jobs.remove(0)
    }
}

/// A message of the queue.
#[derive(Clone)]
pub struct Hint(Message);

impl Hint {
    /// A message that did not come by the queue.
    pub fn new(body: &str) -> Self {
        Self(Message::builder().message_id("by hand").body(body).build())
    }

    pub fn event(&self) -> SqsEvent {
        let record = json!({"messageId": self.0.message_id, "body": self.0.body});
        serde_json::from_value(json!({"Records": [record]})).unwrap()
    }
}

fn secret_file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn tokens(pages: &[&str]) -> BTreeMap<String, String> {
    let token = |page: &&str| ((*page).to_owned(), format!("EAAB-{page}"));
    pages.iter().map(token).collect()
}

/// Messenger knows a token for each Page, also for the one that has none with us.
fn tokens_of_sandbox() -> BTreeMap<String, String> {
    tokens(&[&PAGES[..], &[PAGE_WITHOUT_TOKEN]].concat())
}

/// A request for a broadcast with the usual text.
pub fn request(ids: &[String]) -> Value {
    json!({"contact_ids": ids, "message": {"text": TEXT}})
}

/// All that the tables hold.
async fn stored(
    dynamodb: &aws_sdk_dynamodb::Client,
    config: &Config,
) -> Vec<HashMap<String, AttributeValue>> {
    let mut items = Vec::new();
    for table in [
        &config.broadcasts_table,
        &config.deliveries_table,
        &config.contacts_table,
    ] {
        let scan = dynamodb.scan().table_name(table).into_paginator();
        items.extend(scan.items().send().try_collect().await.unwrap());
    }
    items
}

async fn jobs(app: &App, id: &BroadcastId) -> Vec<Job> {
    app.store.broadcast_and_jobs(id).await.unwrap().unwrap().1
}

impl Drop for Stack {
    /// The promise, after every test. In a thread and with a client of its own, since a test's runtime may be busy here.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let mut calls = self.calls.made();
        calls.retain(|call| call.function != TEST);
        let refused = permissions::refused(&calls);
        assert!(refused.is_empty(), "no role allows: {refused:#?}");
        let leaked = leaks::leaked_in_logs();
        assert!(
            leaked.is_empty(),
            "in the log of this or another story: {leaked:#?}"
        );
        let (sandbox, broadcasts) = (&self.sandbox, self.broadcasts.lock().unwrap().clone());
        let (config, endpoint) = (self.app.config.clone(), &self.endpoints.dynamodb);
        let checked = std::thread::scope(|scope| {
            let check = scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(async {
                    let (sqs, ssm) = (clients::sqs(NOBODY), clients::ssm(NOBODY));
                    let dynamodb = clients::dynamodb(endpoint);
                    for item in stored(&dynamodb, &config).await {
                        let leaked = leaks::secret_in(&format!("{item:?}"));
                        assert_eq!(leaked, None, "stored: {item:?}");
                    }
                    let app = App::new(config, dynamodb, sqs, ssm, Clock::default()).unwrap();
                    for id in broadcasts {
                        check_promise(&app, sandbox, &id).await;
                    }
                });
            });
            check.join()
        });
        if let Err(panic) = checked {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Promises 1 to 3, by the sandbox's ledger and the tables.
async fn check_promise(app: &App, sandbox: &Sandbox, id: &BroadcastId) {
    let mut received = BTreeMap::<_, Vec<_>>::new();
    for message in sandbox.received() {
        if message.metadata.unwrap().contains(&id.to_string()) {
            received
                .entry(message.contact_id)
                .or_default()
                .push(message.message_id);
        }
    }
    let twice: Vec<_> = received
        .iter()
        .filter(|(_, messages)| messages.len() > 1)
        .collect();
    assert!(twice.is_empty(), "contacts who got two messages: {twice:?}");

    for job in jobs(app, id).await {
        let rows = rows(app, &job.id()).await;
        for (contact_id, row) in &rows {
            let got = received
                .get(&contact_id.to_string())
                .map(|messages| messages[0].as_str());
            match &row.state {
                State::Sent { message_id } => {
                    assert_eq!(got, Some(message_id.as_str()), "{contact_id} is sent")
                }
                State::Failed { .. } | State::Skipped { .. } | State::Waiting { .. } => {
                    assert_eq!(
                        got, None,
                        "{contact_id} got a message, and is {:?}",
                        row.state
                    );
                }
                State::Reserved | State::InDoubt { .. } => {}
            }
        }
        check_line(app, &job, &rows).await;
        check_counters(&job, &rows);
    }
}

async fn rows(app: &App, job: &JobId) -> BTreeMap<ContactId, Delivery> {
    let (mut rows, mut after) = (BTreeMap::new(), None);
    loop {
        let (some, last) = app
            .store
            .deliveries(job, None, after.as_ref(), ALL)
            .await
            .unwrap();
        rows.extend(some.into_iter().map(|row| (row.contact_id.clone(), row)));
        after = last;
        if after.is_none() {
            return rows;
        }
    }
}

/// Every contact is settled, in doubt, or stands in line at or after the cursor; there, once.
async fn check_line(app: &App, job: &Job, rows: &BTreeMap<ContactId, Delivery>) {
    let (mut all, mut ahead) = (BTreeSet::new(), Vec::new());
    for number in 0..job.segments {
        let segment = app
            .store
            .segment(&job.snapshot, number)
            .await
            .unwrap()
            .unwrap();
        for (place, contact_id) in segment.contacts.into_iter().enumerate() {
            if u64::from(number) * 1_000 + place as u64 >= job.cursor {
                ahead.push(contact_id.clone());
            }
            all.insert(contact_id);
        }
    }
    assert_eq!(all.len() as u64, job.contacts);
    let distinct: BTreeSet<_> = ahead.iter().collect();
    assert_eq!(distinct.len(), ahead.len(), "somebody stands in line twice");
    for contact_id in all
        .iter()
        .filter(|contact_id| !distinct.contains(contact_id))
    {
        let state = rows.get(contact_id).map(|row| &row.state);
        let done = matches!(
            state,
            Some(
                State::Sent { .. }
                    | State::Failed { .. }
                    | State::Skipped { .. }
                    | State::InDoubt { .. }
            )
        );
        assert!(
            done,
            "{contact_id} is lost: behind the cursor, and {state:?}"
        );
    }
}

/// Six counters that add up to the contacts, and that equal the rows once the job is completed.
fn check_counters(job: &Job, rows: &BTreeMap<ContactId, Delivery>) {
    let counters = job.counters();
    assert_eq!(counters.total(), job.contacts, "{counters:?}");
    let of = |status| {
        rows.values()
            .filter(|row| row.state.status() == status)
            .count() as u64
    };
    let outcomes = &counters.outcomes;
    assert_eq!(
        outcomes.in_doubt,
        of(Status::InDoubt),
        "in doubt, of {counters:?}"
    );
    if job.status == JobStatus::Completed {
        assert_eq!((counters.pending, outcomes.waiting), (0, 0), "{counters:?}");
        let by_rows = (of(Status::Sent), of(Status::Failed), of(Status::Skipped));
        assert_eq!(
            (outcomes.sent, outcomes.failed, outcomes.skipped),
            by_rows,
            "{counters:?}"
        );
    }
}

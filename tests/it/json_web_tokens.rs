//! JSON Web Tokens at the API of one machine, which checks them as API Gateway does; in the shapes of four identity providers.

use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::fixture::issuer::Issuer;
use crate::fixture::up::UpProcess;

const LIST: (&str, &str) = ("GET", "/v1/broadcasts");
const PUT: (&str, &str) = ("PUT", "/v1/contacts");

async fn call(up: &UpProcess, (method, path): (&str, &str), token: &str, body: &Value) -> (u16, Value) {
    let call = up.request(method, path).bearer_auth(token);
    let call = call.header("content-type", "application/json").body(body.to_string());
    let answer = call.send().await.unwrap();
    let status = answer.status().as_u16();
    (
        status,
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default(),
    )
}

async fn status(up: &UpProcess, route: (&str, &str), token: &str) -> u16 {
    call(up, route, token, &Value::Null).await.0
}

/// A provider, the path of its issuer, the options of `up`, the claims of a token that is accepted, and changes with which the
/// answer is another.
type Case<'c> = (&'c str, &'c str, &'c [&'c str], Value, &'c [(Value, u16)]);

/// The rows of the table of identity providers in `infra/README.md`.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_each_identity_provider_are_accepted_as_documented() {
    let list = "broadcasts:read contacts:write";
    let cases: [Case<'_>; 5] = [
        (
            "Cognito",
            "/eu-west-1_Pool",
            &["--jwt-audience", "client-1", "--scope-prefix", "oncecast/"],
            json!({"sub": "client-1", "client_id": "client-1", "token_use": "access",
                   "scope": "oncecast/broadcasts:read oncecast/contacts:write"}),
            &[
                (json!({"client_id": "client-2"}), 401),
                (json!({"scope": list}), 403),
                (json!({"aud": "another"}), 401),
            ],
        ),
        (
            "Auth0",
            "/",
            &[
                "--jwt-audience",
                "https://oncecast",
                "--pages-claim",
                "https://example.com/pages",
            ],
            json!({"sub": "app@clients", "aud": ["https://oncecast", "https://tenant/userinfo"], "azp": "app",
                   "scope": list, "https://example.com/pages": ["page-1"]}),
            &[
                (json!({"aud": ["https://tenant/userinfo"]}), 401),
                (json!({"scope": "openid"}), 403),
                (json!({"https://example.com/pages": null}), 403),
            ],
        ),
        (
            "Entra",
            "/tenant/v2.0",
            &["--jwt-audience", "api-1"],
            json!({"sub": "s", "oid": "o", "aud": "api-1", "scp": list, "ver": "2.0"}),
            &[
                (
                    json!({"scp": null, "roles": ["broadcasts:read", "contacts:write"]}),
                    403,
                ),
                (json!({"aud": "00000003-0000-0000-c000-000000000000"}), 401),
            ],
        ),
        (
            "Entra, an application",
            "/tenant/v2.0",
            &["--jwt-audience", "api-1", "--roles-claim", "roles"],
            json!({"sub": "s", "oid": "o", "aud": "api-1", "roles": ["broadcasts:read", "contacts:write"]}),
            &[
                (json!({"roles": ["contacts:write"]}), 403),
                (json!({"roles": null, "scp": "broadcasts:read"}), 403),
            ],
        ),
        (
            "Keycloak",
            "/realms/shop",
            &["--jwt-audience", "oncecast"],
            json!({"sub": "s", "aud": ["oncecast", "account"], "azp": "shop", "scope": format!("profile {list}")}),
            &[(json!({"aud": "account"}), 401), (json!({"scope": "profile"}), 403)],
        ),
    ];
    for (provider, path, options, claims, refused) in cases {
        let issuer = Issuer::start(path).await;
        let arguments = [&["--jwt-issuer", &*issuer.url], options].concat();
        let up = UpProcess::start(&arguments, &[]);
        assert_eq!(status(&up, LIST, &issuer.token(&claims)).await, 200, "{provider}");
        let unscoped = status(&up, ("POST", "/v1/broadcasts"), &issuer.token(&claims)).await;
        assert_eq!(unscoped, 403, "{provider}");
        for (changes, expected) in refused {
            let mut changed = claims.clone();
            changed
                .as_object_mut()
                .unwrap()
                .extend(changes.as_object().unwrap().clone());
            let found = status(&up, LIST, &issuer.token(&changed)).await;
            assert_eq!(found, *expected, "{provider}: {changes}");
        }
        assert_eq!(issuer.times_asked(), 1, "{provider}: the keys are kept");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn token_that_is_not_valid_now_or_not_signed_by_the_issuer_is_refused() {
    let issuer = Issuer::start("/realms/shop").await;
    let another = Issuer::start("/realms/shop").await;
    let up = UpProcess::start(&["--jwt-issuer", &issuer.url, "--jwt-audience", "oncecast"], &[]);
    let now = jiff::Timestamp::now().as_second();
    let good = json!({"iss": issuer.url, "sub": "s", "aud": "oncecast", "scope": "broadcasts:read", "iat": now, "exp": now + 300});
    let with = |changes: Value| {
        let mut claims = good.clone();
        claims
            .as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        claims.as_object_mut().unwrap().retain(|_, claim| !claim.is_null());
        issuer.token(&claims)
    };
    let header = |algorithm: &str, key: &str| json!({"alg": algorithm, "kid": key});
    let valid = with(json!({}));
    assert_eq!(status(&up, LIST, &valid).await, 200);
    let (signed, signature) = valid.rsplit_once('.').unwrap();
    let (head, _) = signed.split_once('.').unwrap();
    let more = json!({"iss": issuer.url, "sub": "s", "aud": "oncecast", "scope": "broadcasts:write", "exp": now + 300});
    let forged = format!("{head}.{}.{signature}", URL_SAFE_NO_PAD.encode(more.to_string()));
    let cases = [
        ("expired", with(json!({"exp": now - 1}))),
        (
            "without an end",
            issuer.signed(&header("RS256", "k1"), &with_null(&good, "exp")),
        ),
        ("not valid yet", with(json!({"nbf": now + 100}))),
        ("issued later", with(json!({"iat": now + 100}))),
        ("of another issuer", with(json!({"iss": another.url}))),
        (
            "without an issuer",
            issuer.signed(&header("RS256", "k1"), &with_null(&good, "iss")),
        ),
        ("without an audience", with(json!({"aud": null}))),
        ("signed with another key", another.token(&good)),
        ("with changed claims", forged),
        ("without a signature", format!("{signed}.")),
        ("of no algorithm", issuer.signed(&header("none", "k1"), &good)),
        ("of a shared secret", issuer.signed(&header("HS256", "k1"), &good)),
        (
            "of an elliptic curve",
            issuer.signed(&header("ES256", "elliptic"), &good),
        ),
        ("of an unknown key", issuer.signed(&header("RS256", "k2"), &good)),
        ("that is none", "not.a.token".to_owned()),
    ];
    for (reason, token) in &cases {
        assert_eq!(status(&up, LIST, token).await, 401, "a token {reason}");
    }
    assert_eq!(issuer.times_asked(), 1, "an unknown key does not ask at each call");
    let (_, log) = up.terminate();
    assert!(!log.contains(&valid), "the log holds a token");
}

/// Returns the claims without this one.
fn with_null(claims: &Value, name: &str) -> Value {
    let mut claims = claims.clone();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_of_a_token_limit_its_bearer_to_its_pages() {
    let issuer = Issuer::start("/realms/shop").await;
    let options = [
        "--jwt-issuer",
        &issuer.url,
        "--jwt-audience",
        "oncecast",
        "--pages-claim",
        "pages",
    ];
    let up = UpProcess::start(&options, &[]);
    let contact = |page: &str| json!({"contacts": [{"contact_id": format!("of-{page}"), "page_id": page}]});
    for pages in [json!(["page-1", "page-2"]), json!("page-1 page-2")] {
        let claims = json!({"sub": "s", "aud": "oncecast", "scope": "contacts:write", "pages": pages});
        let token = issuer.token(&claims);
        assert_eq!(call(&up, PUT, &token, &contact("page-2")).await.0, 200, "{pages}");
        assert_eq!(call(&up, PUT, &token, &contact("page-3")).await.0, 400, "{pages}");
    }
    let open = up.request("GET", "/v1/health").send().await.unwrap();
    assert_eq!(open.status(), StatusCode::OK);
}

//! Who may do what at the operators' door: every row of it with every kind of credential.

use super::*;

const EVERYBODY: &str = "[teams.a]\n[teams.b]\n\
    [users.ann]\nteam = \"a\"\n\
    [keys.a-key]\nsecret = \"sk-a\"\nteam = \"a\"\n\
    [keys.past]\nsecret = \"sk-past\"\nrole = \"owner\"\nexpires = \"2020-01-01\"\n\
    [keys.far]\nsecret = \"sk-far\"\nrole = \"owner\"\nips = [\"192.0.2.1\"]\n\
    [keys.plain]\nsecret = \"sk-plain\"\n\
    [keys.astray]\nsecret = \"sk-astray\"\nrole = \"team_admin\"\n\
    [keys.owner]\nsecret = \"sk-owner\"\nrole = \"owner\"\n\
    [keys.operator]\nsecret = \"sk-operator\"\nrole = \"operator\"\n\
    [keys.viewer]\nsecret = \"sk-viewer\"\nrole = \"viewer\"\n\
    [keys.b-lead]\nsecret = \"sk-b-lead\"\nteam = \"b\"\nrole = \"team_admin\"\n";

/// One row of the door, as its document tells it.
struct Row {
    method: Method,
    /// With names of team `a` where it has braces.
    path: String,
    is_of_one: bool,
    /// Those who may; `None` is everybody.
    roles: Option<Vec<String>>,
}

async fn rows(gateway: &Gateway, call: &str) -> Vec<Row> {
    let document = look(gateway, "/admin/openapi.json").await;
    let mut rows = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        let name = match path.split('/').nth(2) {
            Some("keys") => "a-key",
            Some("users") => "ann",
            Some("teams") => "a",
            Some("calls") => call,
            _ => "none",
        };
        let filled = path.replace("{id}", name).replace("{route}", "none");
        for (method, operation) in operations.as_object().unwrap() {
            let texts = |list: &Vec<Value>| {
                list.iter().map(|text| text.as_str().unwrap().to_owned()).collect()
            };
            let roles: Option<Vec<String>> = operation["x-roles"].as_array().map(texts);
            assert_eq!(roles.is_none(), operation["security"] == json!([]), "{path}");
            rows.push(Row {
                method: Method::from_bytes(method.to_uppercase().as_bytes()).unwrap(),
                path: filled.clone(),
                is_of_one: path.contains("{id}"),
                roles,
            });
        }
    }
    assert!(rows.len() > 30);
    rows
}

async fn ask_as(gateway: &Gateway, row: &Row, headers: &[(&'static str, &str)]) -> Answer {
    send(gateway.admin, row.method.clone(), &row.path, headers, "").await
}

/// A key that was made and revoked.
async fn revoked(gateway: &Gateway) -> String {
    let made = make(gateway, "/admin/keys", json!({"role": "owner"})).await;
    let path = format!("/admin/keys/{}", made["id"].as_str().unwrap());
    done(gateway, Method::DELETE, &path, Value::Null).await;
    format!("Bearer {}", made["secret"].as_str().unwrap())
}

async fn a_call_of_team_a(gateway: &Gateway) -> String {
    let answer = chat(gateway, "sk-a").await;
    answer.header("x-request-id").unwrap().to_owned()
}

/// What a request shows of its sender.
type Shown<'a> = &'a [(&'static str, &'a str)];

#[tokio::test]
async fn no_row_opens_to_one_without_a_valid_credential() {
    let (_upstream, gateway) = house(EVERYBODY).await;
    let call = a_call_of_team_a(&gateway).await;
    let (revoked, basic) = (revoked(&gateway).await, format!("Basic {ADMIN_KEY}"));
    let (bare, doubled) = (ADMIN_KEY.to_owned(), format!("Bearer {ADMIN_KEY} {ADMIN_KEY}"));
    let bearer = format!("Bearer {ADMIN_KEY}");
    let refused: [(Shown<'_>, (u16, String)); 13] = [
        (&[], code(401, "missing_key")),
        (&[("x-api-key", ADMIN_KEY)], code(401, "missing_key")),
        (&[("cookie", &bearer)], code(401, "missing_key")),
        (&[("authorization", "")], code(401, "invalid_key")),
        (&[("authorization", "Bearer ")], code(401, "invalid_key")),
        (&[("authorization", "Bearer junk")], code(401, "invalid_key")),
        (&[("authorization", &basic)], code(401, "invalid_key")),
        (&[("authorization", &bare)], code(401, "invalid_key")),
        (&[("authorization", &doubled)], code(401, "invalid_key")),
        (&[("authorization", "Bearer sk-past")], code(401, "expired_key")),
        (&[("authorization", &revoked)], code(401, "key_revoked")),
        (&[("authorization", "Bearer sk-far")], code(403, "not_allowed")),
        (&[("authorization", "Bearer sk-plain")], code(403, "not_allowed")),
    ];
    for row in rows(&gateway, &call).await {
        for (headers, expected) in &refused {
            let answer = ask_as(&gateway, &row, headers).await;
            let found = row.roles.as_ref().map(|_| refusal(&answer));
            let expected = row.roles.as_ref().map(|_| expected.clone());
            assert_eq!(found, expected, "{} {} {headers:?}", row.method, row.path);
            assert!(row.roles.is_some() || answer.status == 200, "{}", row.path);
        }
    }
    // Neither is it told to them what there is not.
    let nowhere = send(gateway.admin, Method::GET, "/admin/nowhere", &[], "").await;
    assert_eq!(refusal(&nowhere), code(401, "missing_key"));
}

#[tokio::test]
async fn every_row_opens_to_the_roles_that_it_names_and_to_no_other() {
    let (_upstream, gateway) = house(EVERYBODY).await;
    let call = a_call_of_team_a(&gateway).await;
    for row in rows(&gateway, &call).await {
        for role in ["viewer", "b-lead", "operator", "owner", "astray"] {
            try_role(&gateway, &row, role, &call).await;
        }
    }
}

/// The row by a key of this role; `b-lead` is the admin of another team than the row asks about.
async fn try_role(gateway: &Gateway, row: &Row, role: &str, call: &str) {
    let Some(roles) = &row.roles else { return };
    let key = format!("Bearer sk-{role}");
    let answer = ask_as(gateway, row, &[("authorization", &key)]).await;
    let name = if role == "b-lead" { "team_admin" } else { role };
    let what = format!("{role}: {} {}: {}", row.method, row.path, answer.text());
    if !roles.iter().any(|known| known == name) {
        assert_eq!(refusal(&answer), code(403, "not_allowed"), "{what}");
    } else if role == "b-lead" && row.is_of_one {
        assert_eq!(refusal(&answer), code(404, "not_found"), "{what}");
    } else {
        assert!(![401, 403].contains(&answer.status), "{what}");
    }
    if role == "b-lead" && answer.status == 200 && !row.path.ends_with("openapi.json") {
        for name in ["a-key", "\"ann\"", "\"a\"", "viewer", call] {
            assert!(!answer.text().contains(name), "{name}: {what}");
        }
    }
}

#[tokio::test]
async fn a_team_admin_rules_the_team_and_cannot_leave_it() {
    let (_upstream, gateway) = house(EVERYBODY).await;
    let lead = [("authorization", "Bearer sk-b-lead")];
    let ask = async |method: Method, path: &str, body: Value| {
        send(gateway.admin, method, path, &lead, &body.to_string()).await
    };
    let made = ask(Method::POST, "/admin/keys", json!({"team": "b", "routes": ["fast"]})).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let path = format!("/admin/keys/{}", made.json()["id"].as_str().unwrap());
    assert_eq!(ask(Method::PATCH, &path, json!({"routes": []})).await.status, 200);
    for (method, path, body) in [
        (Method::POST, "/admin/keys", json!({"team": "a"})),
        (Method::POST, "/admin/keys", json!({"team": "b", "user": "ann"})),
        (Method::POST, "/admin/keys", json!({"team": "b", "role": "viewer"})),
        (Method::POST, "/admin/users", json!({"id": "eve", "team": "a"})),
        (Method::PATCH, &*path, json!({"team": "a"})),
        (Method::PATCH, &path, json!({"team": null})),
        (Method::PATCH, &path, json!({"role": "owner"})),
        (Method::PATCH, "/admin/keys/a-key", json!({"routes": []})),
        (Method::POST, "/admin/teams/b/topup", json!({"usd": 5})),
        (Method::PATCH, "/admin/teams/b", json!({"budget": []})),
        (Method::DELETE, "/admin/teams/b", json!({})),
    ] {
        let answer = ask(method.clone(), path, body.clone()).await;
        let refused = [403, 404].contains(&answer.status);
        assert!(refused, "{method} {path} {body}: {} {}", answer.status, answer.text());
    }
    assert_eq!(ask(Method::GET, "/admin/teams/b", json!({})).await.status, 200);
    assert_eq!(ask(Method::DELETE, &path, json!({})).await.status, 200);
}

#[tokio::test]
async fn only_an_owner_gives_takes_or_touches_a_role() {
    let (_upstream, gateway) = house(EVERYBODY).await;
    let ask = async |key: &str, method: Method, path: &str, body: Value| {
        let key = format!("Bearer {key}");
        send(gateway.admin, method, path, &[("authorization", &key)], &body.to_string()).await
    };
    let made = ask("sk-owner", Method::POST, "/admin/keys", json!({"role": "viewer"})).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let viewer = format!("/admin/keys/{}", made.json()["id"].as_str().unwrap());
    let made = ask("sk-operator", Method::POST, "/admin/keys", json!({})).await;
    let plain = format!("/admin/keys/{}", made.json()["id"].as_str().unwrap());
    for (method, path, body) in [
        (Method::POST, "/admin/keys".to_owned(), json!({"role": "viewer"})),
        (Method::PATCH, plain.clone(), json!({"role": "owner"})),
        (Method::PATCH, viewer.clone(), json!({"role": null})),
        (Method::PATCH, viewer.clone(), json!({"expires": null})),
        (Method::POST, format!("{viewer}/rotate"), json!({})),
        (Method::DELETE, viewer.clone(), json!({})),
    ] {
        let answer = ask("sk-operator", method.clone(), &path, body.clone()).await;
        assert_eq!(refusal(&answer), code(403, "not_allowed"), "{method} {path} {body}");
    }
    assert_eq!(ask("sk-owner", Method::DELETE, &viewer, json!({})).await.status, 200);
    assert_eq!(ask("sk-operator", Method::DELETE, &plain, json!({})).await.status, 200);
}

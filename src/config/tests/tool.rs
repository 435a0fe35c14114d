//! What is said of tools that could never work, or would do what nobody meant.

use serde_json::json;

use super::super::{
    BuiltinTool, McpTransport, Piece, StoreUrl, TextTemplate, ToolAuth, ToolKind, UrlTemplate,
};
use super::*;
use crate::canon::Effect;

fn tool(text: &str) -> Tool {
    let config = parse(&format!("{SOUND}[tools.t]\n{text}")).unwrap();
    config.tools["t"].clone()
}

fn wrong(text: &str) -> String {
    complaints_beside_sound(&format!("[tools.t]\n{text}"))
}

const GET: &str = r#"
kind = "http"
method = "GET"
url = "https://orders.internal/v2/orders/{id}?full={full}"
input = { type = "object", properties = { id = {}, full = {} } }
"#;

#[test]
fn a_tool_over_http_is_read_whole() {
    let text = format!(
        r#"{GET}
        effect = "read"
        version = "2"
        description = "One order."
        timeout = "4s"
        retry = {{ attempts = 2, base = "100ms", max = "1s" }}
        breaker = {{ failures = 3, cooldown = "5s" }}
        cache = {{ ttl = "30s", scope = "all" }}
        limits = {{ tool = "50/s", user = ["60/m", "1k/d"], run = 10, max_wait = "2s" }}
        error_when = "$.error"
        headers = {{ X-Tenant = "a" }}
        query = {{ q = "{{id}}" }}
        auth = {{ kind = "basic", user = "gw", password = "file:/dev/null/none" }}
        "#
    );
    let without_auth: String =
        text.lines().filter(|line| !line.contains("auth =")).collect::<Vec<_>>().join("\n");
    let tool = tool(&without_auth);
    let ToolKind::Http(http) = &tool.kind else { panic!("{tool:?}") };
    assert_eq!(http.url.origin, "https://orders.internal");
    let place = |name: &str| Piece::Place(name.to_owned());
    assert_eq!(http.url.path.0, [Piece::Text("/v2/orders/".to_owned()), place("id")]);
    assert_eq!(http.query["q"], TextTemplate(vec![place("id")]));
    assert!(http.idempotency && http.web.allow_private);
    assert_eq!((tool.effect, tool.error_when.as_deref()), (Effect::Read, Some("/error")));
    assert!(tool.cache.unwrap().shared);
    assert_eq!((tool.limits.user.len(), tool.limits.run), (2, Some(10)));
    assert_eq!(tool.limits.max_wait, Duration::from_secs(2));
}

#[test]
fn a_tool_says_what_it_does_to_the_world() {
    assert!(wrong(GET).contains("`effect` is missing"), "{}", wrong(GET));
    assert!(wrong(&format!("{GET}effect = \"safe\"")).contains("is none of"));
    let cached = format!("{GET}effect = \"once\"\ncache = {{ ttl = \"1s\" }}");
    assert!(wrong(&cached).contains("can be remembered"), "{}", wrong(&cached));
    assert_eq!(tool("kind = \"builtin\"\nname = \"calculator\"").effect, Effect::Read);
    assert!(
        wrong("kind = \"builtin\"\nname = \"calculator\"\neffect = \"once\"")
            .contains("no key of the kind")
    );
}

#[test]
fn a_source_remembers_results_only_if_some_of_its_tools_only_reads() {
    let server = |more: &str| {
        wrong(&format!(
            "kind = \"mcp\"\ntransport = \"streamable-http\"\nurl = \"https://mcp.example/mcp\"\n\
             cache = {{ ttl = \"1s\" }}\n{more}"
        ))
    };
    for useless in [
        "",
        "effect = \"idempotent\"",
        "effects = { drop = \"once\" }",
        "effects = { look = \"read\" }\nallow = [\"drop\", \"pay_*\"]",
        "effect = \"read\"\neffects = { drop = \"once\" }\nallow = [\"drop\"]",
    ] {
        let wrong = server(useless);
        assert!(
            wrong.contains("tools.t.cache: none of its tools only reads"),
            "{useless}: {wrong}"
        );
    }
    for useful in [
        "effect = \"read\"",
        "effects = { look = \"read\" }",
        "effects = { look = \"read\" }\nallow = [\"lo*\"]",
        "effect = \"read\"\neffects = { drop = \"once\" }\nallow = [\"drop\", \"look\"]",
    ] {
        assert_eq!(server(useful), "", "{useful}");
    }
}

#[test]
fn a_tool_that_is_an_agent_names_one_and_has_only_what_runs_have() {
    let agents = "[agents.searcher]\nroute = \"fast\"\ninstructions = \"Search.\"\n";
    let wrong = |research: &str, more: &str| {
        let tool = format!("[tools.research]\nkind = \"agent\"\n{research}\n");
        complaints_beside_sound(&format!("{agents}{tool}{more}"))
    };
    let named = "agent = \"searcher\"\ntimeout = \"1m\"\nlimits = { tool = \"2/h\" }";
    assert_eq!(wrong(named, ""), "");
    let (undo, expose) = (
        "[tools.calc]\nkind = \"http\"\nmethod = \"GET\"\neffect = \"read\"\n\
         url = \"https://a.example\"\nundo = { tool = \"research\" }\n",
        "[mcp]\nexpose = { tools = [\"research\"] }\n",
    );
    for (research, more, said) in [
        ("", "", "`agent` is missing"),
        ("agent = \"seacher\"", "", "no agent is called \"seacher\"; did you mean \"searcher\"?"),
        ("agent = \"searcher\"\nretry = { attempts = 1 }", "", "is no key of the kind \"agent\""),
        (named, undo, "\"research\" is an agent, which only runs ask"),
        (named, expose, "is an agent: write \"searcher\" among the `agents`"),
    ] {
        let wrong = wrong(research, more);
        assert!(wrong.contains(said), "{said}: {wrong}");
    }
}

#[test]
fn a_key_of_another_kind_is_no_key() {
    let text = format!("{GET}effect = \"read\"\ndsn = \"sqlite:a.db\"\nspeck = 1");
    let wrong = wrong(&text);
    assert!(wrong.contains("tools.t.dsn: is no key of the kind \"http\""), "{wrong}");
    assert!(wrong.contains("\"speck\" is not known; did you mean \"spec\"?"), "{wrong}");
    assert_eq!(wrong.lines().count(), 2, "{wrong}");
}

#[test]
fn who_calls_can_choose_nothing_of_the_host() {
    for bad in [
        "https://{host}/a",
        "https://a.{zone}.example/",
        "{url}",
        "https://user:pw@example.com/",
        "ftp://example.com/",
        "https://example.com/a/../{b}",
        "https://example.com/#{a}",
        "https://example.com/{a",
        "https://example.com/a}",
        "https://example.com/{a b}",
        "https://example.com/a b",
        "https://",
        "/{path}",
    ] {
        assert!(UrlTemplate::parse(bad).is_err(), "{bad}");
    }
    for good in
        ["https://example.com", "http://[::1]:80/a/{b}.json", "https://example.com?q={q}&r=1"]
    {
        assert!(UrlTemplate::parse(good).is_ok(), "{good}");
    }
}

#[test]
fn a_place_needs_its_argument() {
    let text = GET.replace("full = {}", "ful = {}");
    let wrong = wrong(&format!("{text}effect = \"read\""));
    assert!(wrong.contains("has no property \"full\""), "{wrong}");
    let body = "kind = \"http\"\neffect = \"once\"\nmethod = \"GET\"\nurl = \"https://a.example\"\nbody = { a = 1 }";
    assert!(self::wrong(body).contains("this method has none"));
}

#[test]
fn a_credential_has_the_keys_of_its_kind() {
    let auth = |auth: &str| wrong(&format!("{GET}effect = \"read\"\nauth = {auth}"));
    assert!(auth("{ kind = \"bearer\" }").contains("`token` is missing"));
    assert!(
        auth("{ kind = \"bearer\", token = \"env:SWITCHPOINT_TEST_NONE\" }").contains("is not set")
    );
    let foreign = auth("{ kind = \"bearer\", token = \"x\", user = \"y\" }");
    assert!(foreign.contains("auth.user: is no key of the kind \"bearer\""), "{foreign}");
    assert!(
        auth("{ kind = \"header\", name = \"content-length\", value = \"1\" }")
            .contains("frames the message")
    );
    assert!(auth("{ kind = \"magic\" }").contains("is none of"));
    let text = format!(
        "{GET}effect = \"read\"\nauth = {{ kind = \"oauth2_client\", token_url = \"https://idp.internal/token\", client_id = \"gw\", client_secret = \"canary\" }}"
    );
    let tool = tool(&text);
    let ToolKind::Http(http) = &tool.kind else { panic!("{tool:?}") };
    assert!(matches!(&http.web.auth, Some(ToolAuth::Client(client)) if client.client_id == "gw"));
    assert!(!format!("{http:?}").contains("canary"));
}

#[test]
fn a_program_is_started_only_if_it_is_on_the_list() {
    let server = |command: &str, allowed: &str| {
        complaints_beside_sound(&format!(
            "[mcp]\nallowed_commands = [{allowed}]\n[tools.files]\nkind = \"mcp\"\ntransport = \"stdio\"\ncommand = [{command}]\n"
        ))
    };
    assert_eq!(server("\"/usr/bin/mcp-files\", \"--root\"", "\"/usr/bin/mcp-files\""), "");
    assert!(server("\"/usr/bin/mcp-files\"", "").contains("is not among the `allowed_commands`"));
    assert!(server("\"mcp-files\"", "\"mcp-files\"").contains("absolute path"));
    assert!(server("", "").contains("must name a program"));
    let url = wrong(
        "kind = \"mcp\"\ntransport = \"stdio\"\ncommand = [\"/bin/a\"]\nurl = \"https://a.example\"",
    );
    assert!(url.contains("has no meaning with `transport = \"stdio\"`"), "{url}");
    let tool = tool(
        "kind = \"mcp\"\ntransport = \"streamable-http\"\nurl = \"https://mcp.example/mcp\"\neffects = { search = \"read\" }",
    );
    assert_eq!((tool.effect_of("search"), tool.effect_of("drop")), (Some(Effect::Read), None));
    let ToolKind::Mcp(mcp) = &tool.kind else { panic!("{tool:?}") };
    assert!(matches!(mcp.transport, McpTransport::Http { .. }));
}

#[test]
fn a_database_is_asked_by_templates_or_by_reading() {
    let sql = "kind = \"sql\"\ndsn = \"sqlite:shop.db\"\n";
    assert!(wrong(sql).contains("`templates` goes with"));
    assert!(
        wrong(&format!("{sql}mode = \"select_only\"\ntemplates = {{ a = \"select 1\" }}"))
            .contains("`templates` goes with")
    );
    assert!(
        wrong("kind = \"sql\"\nmode = \"select_only\"\ndsn = \"memory:\"")
            .contains("name a file or a server")
    );
    let tool = tool(&format!(
        "{sql}templates = {{ a = \"select :x\", b = {{ sql = \"select :y\", params = {{ y = \"integer\" }} }} }}"
    ));
    let ToolKind::Sql(sql) = &tool.kind else { panic!("{tool:?}") };
    assert_eq!(
        (sql.templates["a"].sql.as_str(), &sql.templates["b"].params["y"]),
        ("select :x", &"integer".to_owned())
    );
    assert!(matches!(&sql.database, StoreUrl::Sqlite(path) if path.ends_with("shop.db")));
}

#[test]
fn only_what_fetches_has_hosts() {
    assert!(wrong("kind = \"builtin\"\nname = \"fetch\"").contains("`hosts` must name"));
    assert!(
        wrong("kind = \"builtin\"\nname = \"calculator\"\nhosts = [\"a.example\"]")
            .contains("only with `name = \"fetch\"`")
    );
    assert!(wrong("kind = \"builtin\"\nname = \"calcuator\"").contains("is none of"));
    let tool = tool("kind = \"builtin\"\nname = \"fetch\"\nhosts = [\"A.example\"]");
    let expected = BuiltinTool {
        name: "fetch".to_owned(),
        hosts: vec!["a.example".to_owned()],
        allow_private: false,
    };
    assert_eq!((tool.kind, tool.untrusted), (ToolKind::Builtin(expected), true));
}

#[test]
fn names_lead_somewhere() {
    let text = format!(
        "{GET}effect = \"once\"\nprobe = \"statsu\"\nundo = {{ tool = \"crm.drop\", args = {{ id = \"$.id\" }} }}\n[tools.status]\nkind = \"builtin\"\nname = \"datetime\"\n"
    );
    let wrong = wrong(&text);
    assert!(wrong.contains("no tool is called \"statsu\"; did you mean \"status\"?"), "{wrong}");
    assert!(wrong.contains("no tool is called \"crm\""), "{wrong}");
    let dotted =
        complaints_beside_sound("[tools.\"a.b\"]\nkind = \"builtin\"\nname = \"datetime\"\n");
    assert!(dotted.contains("must have no dot"), "{dotted}");
    let kind = complaints_beside_sound("[tools.t]\nkind = \"htp\"\n");
    assert!(kind.contains("is none of") && kind.lines().count() == 1, "{kind}");
}

#[test]
fn what_was_written_is_kept_for_those_who_show_it() {
    let tool = tool(&format!("{GET}effect = \"read\""));
    assert_eq!(tool.written["method"], json!("GET"));
}

#[test]
fn documents_for_schemas_are_known_by_their_addresses_and_faults_name_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let load = || {
        let origin = folder.path().join("switchpoint.toml");
        Config::parse(
            "[schemas]\ndir = \".\"\n[tools.calc]\nkind = \"builtin\"\nname = \"calculator\"\n",
            &origin,
            &[],
        )
    };
    write("a.json", r#"{"$id": "https://acme.example/a.json", "type": "string"}"#);
    write("notes.md", "none");
    let config = load().unwrap();
    assert_eq!(config.schemas.get("https://acme.example/a.json").unwrap()["type"], "string");
    assert_eq!(config.tools["calc"].schemas, config.schemas);
    for (text, said) in [
        ("{", "b.json is not JSON"),
        (r#"{"type": "string"}"#, "b.json needs an `$id`"),
        (r#"{"$id": "b.json"}"#, "b.json needs an `$id`"),
        (r#"{"$id": "https://acme.example/a.json"}"#, "b.json: another file"),
    ] {
        write("b.json", text);
        let problems = load().unwrap_err();
        assert_eq!(problems[0].path, "schemas.dir");
        assert!(problems[0].message.contains(said), "{problems:?}");
    }
}

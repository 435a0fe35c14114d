//! Agents and prompts: what is said of each mistake, and what a definition comes to.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::super::prompt::LOCK;
use super::super::{Band, Config, Problem};
use super::{KINDS, SOUND, complaints_beside_sound, parse};

const TOOLS: &str = r#"
[tools.calc]
kind = "builtin"
name = "calculator"
[tools.pay]
kind = "http"
method = "POST"
url = "https://pay.example/refunds"
effect = "once"
[tools.crm]
kind = "mcp"
transport = "streamable-http"
url = "https://crm.example/mcp"
effect = "read"
effects = { addNote = "once" }
"#;

fn sound(text: &str) -> Config {
    parse(&format!("{SOUND}{text}")).unwrap()
}

fn warnings(text: &str) -> Vec<String> {
    sound(text).warnings.iter().map(|warning| warning.path.clone()).collect()
}

/// The messages, without the lines of the config that is sound.
fn faults(text: &str) -> Vec<String> {
    let said = complaints_beside_sound(text);
    said.lines().map(|line| line.split_once(": ").unwrap().1.to_owned()).collect()
}

#[test]
fn whatever_an_agent_names_that_is_not_there_is_told_with_the_nearest_name() {
    let text = format!(
        r#"{TOOLS}
[agents.support]
route = "fats"
prompt = "suport@prod"
tools = ["clac", "crm.getCustomer", "crmm.getCustomer", "c*", "x*", "a*b"]
guards = ["pii"]
handoffs = ["suport"]
delegates = ["support", "billing", "billing"]
fallback_agent = "bilingg"
require_tools = ["calc", "fetch"]
[agents.support.context]
summariser = "slow"
[agents.billing]
route = "groq/llama"
instructions = "Bill."
"#
    );
    assert_eq!(
        faults(&text),
        [
            r#"agents.support.route: no route is called "fats"; did you mean "fast"?"#,
            r#"agents.support.prompt: no prompt is called "suport""#,
            r#"agents.support.tools[0]: no tool is called "clac"; did you mean "calc"?"#,
            r#"agents.support.tools[2]: no tool is called "crmm"; did you mean "crm"?"#,
            r#"agents.support.tools[4]: no tool begins with "x"; known: calc, crm, pay"#,
            r#"agents.support.tools[5]: "a*b": a `*` may only stand at the end"#,
            r#"agents.support.guards[0]: no guard is called "pii""#,
            r#"agents.support.handoffs[0]: no agent is called "suport"; did you mean "support"?"#,
            "agents.support.delegates[0]: is the agent itself",
            "agents.support.delegates[2]: is named twice",
            r#"agents.support.fallback_agent: no agent is called "bilingg"; did you mean "billing"?"#,
            r#"agents.support.require_tools[1]: "fetch" is none of its `tools`; known: clac, crm.getCustomer, crmm.getCustomer, c*, x*, a*b"#,
            r#"agents.support.context.summariser: no route is called "slow"; known: fast"#,
        ]
    );
}

#[test]
fn an_agent_has_a_route_and_either_a_prompt_or_instructions() {
    let text = r#"
[agents.one]
[agents.runs]
route = "fast"
instructions = "Run."
[agents.two]
route = "fast"
prompt = "x@1"
instructions = "Both."
[agents.three]
route = "fast"
instructions = "None of its own."
output_schema = { type = "array" }
limits = { loop_warn = 6 }
"#;
    assert_eq!(
        faults(text),
        [
            "agents.one: `route` is missing",
            "agents.one: needs a `prompt` or `instructions`",
            "agents.runs: this name is taken by the API",
            "agents.two.instructions: stands beside `prompt`; write one of them",
            "agents.three.output_schema: must be the schema of an object: type = \"object\"",
            "agents.three.limits: `loop_warn` must not be more than `loop_stop`",
        ]
    );
}

#[test]
fn versions_labels_and_weights_fit_together() {
    let text = r#"
[agents.support]
version = 7
route = "fast"
instructions = "Help."
[agents.support.rollout]
weights = { 7 = 0, 9 = 0 }
labels = { candidate = 8, prod = "6", 8 = "8" }
[agents.support.versions.7]
instructions = "Again."
[agents.support.versions.8]
route = "slow"
rollout = { weights = {} }
"#;
    assert_eq!(
        faults(text),
        [
            r#"agents.support.rollout.weights.9: there is no version "9"; did you mean "7"?"#,
            "agents.support.rollout.weights: must be more than 0 together",
            "agents.support.rollout.labels.8: is the name of a version",
            r#"agents.support.rollout.labels.prod: there is no version "6"; did you mean "7"?"#,
            "agents.support.versions.7: is the version that the agent itself is",
            r#"agents.support.versions.8.route: no route is called "slow"; known: fast"#,
            r#"agents.support.versions.8.rollout: "rollout" is not known"#,
        ]
    );
}

#[test]
fn a_version_is_the_agent_but_for_what_it_says_itself() {
    let config = sound(
        r#"
[agent_engine.defaults]
limits = { steps = 4, timeout = "5s" }
confidence = { approve = 0.6 }
[agents.support]
version = 7
route = "fast"
instructions = "Help."
limits = { steps = 6 }
access = { keys = ["support-*"] }
[agents.support.rollout]
weights = { 7 = 90, 8 = 10 }
labels = { candidate = 8 }
[agents.support.versions.8]
instructions = "Help more."
budget = { usd = 0.25 }
"#,
    );
    let agent = &config.agents["support"];
    assert_eq!((agent.limits.steps, agent.limits.timeout), (6, Duration::from_secs(5)));
    assert_eq!(agent.confidence.as_ref().map(|it| it.band(Some(600))), Some(Band::Approve));
    let next = agent.at("8").unwrap();
    assert_eq!(next.instructions.as_deref(), Some("Help more."));
    assert_eq!((next.limits.steps, next.budget.usd), (6, Some(250_000_000)));
    assert_eq!(next.access_keys, agent.access_keys);
    assert_eq!(agent.labels["candidate"], "8");
    assert!(agent.at("7").is_some() && agent.at("9").is_none());
}

#[test]
fn nobody_falls_back_in_a_circle() {
    let text = r#"
[agents.one]
route = "fast"
instructions = "1"
fallback_agent = "two"
[agents.two]
route = "fast"
instructions = "2"
fallback_agent = "one"
[agents.three]
route = "fast"
instructions = "3"
fallback_agent = "one"
"#;
    assert_eq!(
        faults(text),
        [
            "agents.one.fallback_agent: leads back to the agent itself",
            "agents.two.fallback_agent: leads back to the agent itself",
        ]
    );
}

#[test]
fn probes_and_undoing_are_tools_and_a_probe_only_reads() {
    let text = format!(
        r#"{TOOLS}
[tools.refund]
kind = "http"
method = "POST"
url = "https://pay.example/refunds"
effect = "once"
probe = "pay"
undo = {{ tool = "refund" }}
[tools.delegate_one]
kind = "builtin"
name = "calculator"
[tools.secret]
kind = "builtin"
name = "calculator"
internal = true
[agents.one]
route = "fast"
instructions = "1"
tools = ["secret"]
"#
    );
    assert_eq!(
        faults(&text),
        [
            r#"tools.refund.probe: "pay" does more than to read"#,
            "tools.refund.undo: is the tool itself",
            r#"tools.delegate_one: is what the agent "one" is called as a tool"#,
            r#"agents.one.tools[0]: "secret" is internal: no model sees it"#,
        ]
    );
}

#[test]
fn what_must_not_happen_twice_needs_a_decision_where_strangers_may_ask_for_it() {
    let agent = r#"
[agents.one]
route = "fast"
instructions = "1"
tools = ["pay", "crm.addNote", "crm.getCustomer", "crm.*"]
"#;
    let text = format!("{TOOLS}{agent}");
    let paths = [0, 1, 3].map(|position| format!("agents.one.tools[{position}]"));
    assert_eq!(warnings(&text), paths);
    let decided = text.replace("[tools.crm]", "risk = \"normal\"\n[tools.crm]");
    assert_eq!(warnings(&decided), paths[1..]);
    let approved = format!("{text}[tools.crm.approval]\ntools = [\"addNote\"]\n");
    assert_eq!(warnings(&approved), paths[..1]);

    let open = "[keys.staff]\ntemplate = true\n";
    let said = faults(&format!("{text}{open}"));
    assert!(said[0].starts_with("agents.one.tools[0]: \"pay\" does what must not"), "{said:?}");
    assert_eq!(said.len(), 3);
    let closed = format!("{text}{open}agents = [\"two\"]\n");
    assert!(warnings(&closed).contains(&"keys.staff.agents[0]".to_owned()));
}

// === Prompts ===

struct Prompts(tempfile::TempDir);

impl Prompts {
    fn with(files: &[(&str, &str)]) -> Self {
        let prompts = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            prompts.write(name, text);
        }
        prompts
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    fn load(&self, labels: &str) -> Result<Config, Vec<Problem>> {
        let text = format!("{SOUND}\n[prompts.support]\ndir = \".\"\nlabels = {{ {labels} }}\n");
        Config::parse(&text, &self.0.path().join("switchpoint.toml"), KINDS)
    }

    fn faults(&self, labels: &str) -> String {
        let problems = self.load(labels).unwrap_err();
        let messages: Vec<&str> = problems.iter().map(|it| it.message.as_str()).collect();
        messages.join("\n").replace(&*self.0.path().join(".").to_string_lossy(), "PROMPTS")
    }
}

#[test]
fn a_prompt_is_found_by_its_label_and_its_number_and_a_label_moves() {
    let files = [("1.md", "One.\n"), ("2.md", "Two.\n"), ("03.md", "-"), ("README.md", "-")];
    let prompts = Prompts::with(&files);
    let config = prompts.load("prod = 2").unwrap();
    let (text, digest, version) = config.prompt("support@prod").unwrap();
    assert_eq!((text, version, digest.len()), ("Two.\n", 2, 64));
    assert_eq!(config.prompt("support@1").unwrap().0, "One.\n");
    let moved = prompts.load("prod = 1").unwrap();
    assert_eq!(moved.prompt("support@prod").unwrap(), config.prompt("support@1").unwrap());
    for (name, message) in [
        ("support", "\"support\" names no version; write \"support@1\", or a label of it"),
        ("suport@1", "no prompt is called \"suport\"; did you mean \"support\"?"),
        ("support@pord", "no label is called \"pord\"; did you mean \"prod\"?"),
        ("support@3", "there is no version 3; known: 1, 2"),
    ] {
        assert_eq!(config.prompt(name).unwrap_err(), message);
    }
}

#[test]
fn a_version_that_is_edited_in_place_is_refused_and_named() {
    let prompts = Prompts::with(&[("1.md", "One.\n")]);
    let config = prompts.load("").unwrap();
    assert!(config.warnings[0].message.contains("1.md is not in prompts.lock"));
    assert_eq!(config.prompts["support"].lock().unwrap(), [1]);
    prompts.write("2.md", "Two.\n");
    let config = prompts.load("prod = 2").unwrap();
    assert_eq!(config.prompts["support"].lock().unwrap(), [2]);
    let config = prompts.load("prod = 2").unwrap();
    assert_eq!(config.warnings, []);
    assert!(config.prompts["support"].lock().unwrap().is_empty());
    let lock = fs::read_to_string(prompts.0.path().join(LOCK)).unwrap();
    assert_eq!(lock.lines().count(), 2, "{lock}");

    prompts.write("1.md", "One!\n");
    assert_eq!(
        prompts.faults(""),
        "PROMPTS/1.md differs from its digest in prompts.lock: a version is never edited, so make \
         the next one"
    );
    fs::remove_file(prompts.0.path().join("1.md")).unwrap();
    assert_eq!(prompts.faults(""), "PROMPTS/prompts.lock knows 1.md, which is not there");
}

#[test]
fn a_folder_that_holds_no_prompts_is_told_with_its_reason() {
    let prompts = Prompts::with(&[]);
    assert_eq!(prompts.faults("prod = 1"), "PROMPTS has no versions; write 1.md");
    prompts.write("1.md", " \n");
    assert_eq!(prompts.faults(""), "PROMPTS/1.md is empty");
    prompts.write("1.md", "One.");
    assert_eq!(prompts.faults("prod = 2"), "there is no 2.md; known: 1");
    assert!(prompts.faults("7 = 1").contains("is not a label"));
    prompts.write(LOCK, "1 sha256:abc");
    assert_eq!(prompts.faults(""), "PROMPTS/prompts.lock:1: write `3 sha256:` and 64 digits");
    let gone = parse("[prompts.support]\ndir = \"nowhere\"").unwrap_err();
    assert!(gone[0].message.contains("No such file"), "{gone:?}");
    assert_eq!(gone[0].file, Path::new("switchpoint.toml"));
}

#[test]
fn an_agent_is_no_tool_of_its_own() {
    let agents = r#"
[tools.me]
kind = "agent"
agent = "one"
[agents.one]
route = "fast"
instructions = "Help."
tools = ["me"]
"#;
    assert_eq!(faults(agents), ["agents.one.tools[0]: is the agent itself"]);
    let other = "[agents.two]\nroute = \"fast\"\ninstructions = \"Help.\"\ntools = [\"me\"]\n";
    let agents = agents.replace("tools = [\"me\"]\n", other);
    assert_eq!(warnings(&agents), Vec::<String>::new(), "what it does, its own tools say");
}

#[test]
fn what_cannot_do_what_it_is_written_for_is_warned_of() {
    let text = r#"
[agents.one]
route = "fast"
instructions = "Help."
on_unknown_outcome = "probe"
context = { window = 1000, reserve_output = 4000 }
"#;
    let paths = ["agents.one.on_unknown_outcome", "agents.one.context"];
    assert_eq!(warnings(text), paths);
    let probe = "[tools.pay]\nkind = \"http\"\nmethod = \"POST\"\nurl = \"https://pay.example/\"\n\
                 effect = \"once\"\nrisk = \"normal\"\nprobe = \"paid\"\n[tools.paid]\nkind = \"http\"\n\
                 method = \"GET\"\nurl = \"https://pay.example/\"\neffect = \"read\"\n";
    let sound = text.replace("window = 1000", "window = 9000");
    let sound =
        format!("{probe}{}", sound.replace("[agents.one]", "[agents.one]\ntools = [\"pay\"]"));
    assert_eq!(warnings(&sound), Vec::<String>::new());
}

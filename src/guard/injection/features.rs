//! What makes an attempt at injection: which classes of words and signs have to meet, how near, and
//! how much that says.

/// What kind of attempt it is. The labels of findings, and the switches of the config.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Category {
    #[default]
    Override,
    Role,
    Hidden,
    Encoded,
    Exfiltration,
    Persona,
    Tools,
}

pub(super) struct Feature {
    /// Stable: the reasons of verdicts bear it.
    pub(super) name: &'static str,
    /// None of what speaks against an attack.
    pub(super) category: Option<Category>,
    /// In thousandths of the score.
    pub(super) points: i32,
    /// The classes have to stand within so many characters, ends of sentences counting more.
    pub(super) within: u64,
    /// One class of each; `|` is between those that do as well.
    pub(super) needs: &'static [&'static str],
}

// === impl Category ===

impl Category {
    pub(super) const ALL: [Self; 7] = [
        Self::Override,
        Self::Role,
        Self::Hidden,
        Self::Encoded,
        Self::Exfiltration,
        Self::Persona,
        Self::Tools,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Override => "override",
            Self::Role => "role",
            Self::Hidden => "hidden",
            Self::Encoded => "encoded",
            Self::Exfiltration => "exfiltration",
            Self::Persona => "persona",
            Self::Tools => "tools",
        }
    }
}

const fn feature(
    (category, name): (Category, &'static str),
    (points, within): (i32, u64),
    needs: &'static [&'static str],
) -> Feature {
    Feature { name, category: Some(category), points, within, needs }
}

/// What is said about attacks rather than attacking.
const fn against(name: &'static str, (points, within): (i32, u64), needs: &'static [&'static str]) -> Feature {
    Feature { name, category: None, points, within, needs }
}

use Category::{Encoded, Exfiltration, Hidden, Override, Persona, Role, Tools};

/// At most 128.
pub(super) const FEATURES: &[Feature] = &[
    feature((Override, "override.earlier_rules"), (800, 48), &["forget", "before", "rules"]),
    feature((Override, "override.given"), (550, 50), &["forget", "given"]),
    feature((Override, "override.all_given"), (650, 60), &["forget", "all", "given"]),
    feature((Override, "override.all_earlier"), (450, 45), &["forget", "all", "before"]),
    feature((Override, "override.all_rules"), (600, 40), &["forget", "all", "rules"]),
    feature((Override, "override.your_rules"), (550, 40), &["forget", "your", "rules"]),
    feature((Override, "override.stop_following"), (600, 50), &["stop", "follow", "your|operator", "rules|operator"]),
    feature((Override, "override.rules"), (350, 30), &["forget", "rules"]),
    feature((Override, "override.rules_then"), (600, 50), &["bare", "become|act|send|reveal|harm|obey"]),
    feature((Override, "override.all_then"), (550, 45), &["forget", "all", "become"]),
    feature((Override, "override.safety"), (600, 30), &["forget|erase", "safety"]),
    feature((Override, "override.above_text"), (550, 50), &["forget|annul", "abovetext"]),
    feature((Override, "override.system"), (750, 50), &["forget", "system"]),
    feature((Override, "override.prompt"), (500, 30), &["forget", "yourprompt"]),
    feature((Override, "override.operator"), (700, 60), &["forget", "operator", "rules"]),
    feature((Override, "override.annulled_earlier"), (450, 60), &["annul", "before", "rules"]),
    feature((Override, "override.annulled_yours"), (500, 60), &["annul", "your|given", "rules"]),
    feature((Override, "override.erased_operator"), (600, 60), &["erase", "operator", "rules"]),
    feature((Override, "override.erased_given"), (550, 50), &["erase", "given"]),
    feature((Override, "override.erased_yours"), (550, 40), &["erase", "your", "before", "rules"]),
    feature((Override, "override.erased_memory"), (550, 40), &["erase|forget", "memory"]),
    feature((Override, "override.unreal_rules"), (550, 45), &["unreal", "rules"]),
    feature((Override, "override.unreal_text"), (500, 40), &["unreal", "before|abovetext", "wording"]),
    feature((Override, "override.outranked"), (550, 60), &["outrank", "your|operator", "rules"]),
    feature((Override, "override.over"), (550, 80), &["over", "rules", "before"]),
    feature((Override, "override.new_task"), (300, 0), &["newtask"]),
    feature((Override, "override.new_task_begins"), (550, 0), &["newtask_colon"]),
    feature((Override, "override.new_task_now"), (600, 100), &["newtask", "annul|over"]),
    feature((Override, "override.new_task_instead"), (700, 90), &["newtask", "forget|unreal"]),
    feature((Override, "override.new_task_erased"), (600, 90), &["newtask", "erase", "rules"]),
    feature((Override, "override.obey"), (500, 0), &["obey"]),
    feature((Override, "override.obey_now"), (650, 90), &["obey", "fromnow"]),
    feature((Override, "override.obey_instead"), (750, 110), &["obey|isay", "forget"]),
    feature((Override, "override.for_me_instead"), (650, 110), &["isay", "rules", "erase|unreal|before"]),
    feature((Override, "override.no_limits"), (600, 110), &["forget", "rules", "nolimits"]),
    feature((Role, "role.special_token"), (250, 0), &["special"]),
    feature((Role, "role.special_role"), (550, 0), &["special_role"]),
    feature((Role, "role.special_turn"), (600, 140), &["special", "become"]),
    feature((Role, "role.special_limits"), (800, 140), &["special", "nolimits|attack"]),
    feature((Role, "role.turn"), (150, 0), &["turn"]),
    feature((Role, "role.closed_turn"), (550, 60), &["closing", "turn"]),
    feature((Role, "role.ended_turn"), (650, 80), &["ending", "turn"]),
    feature((Role, "role.turn_authority"), (600, 110), &["turn", "authority|nolimits|obey"]),
    feature((Role, "role.turn_secret"), (500, 110), &["turn", "reveal", "data"]),
    feature((Role, "role.closed_override"), (700, 110), &["closing", "attack"]),
    feature((Role, "role.ended_new_task"), (700, 110), &["ending", "newtask|authority"]),
    feature((Hidden, "hidden.tags"), (850, 0), &["tags"]),
    feature((Hidden, "hidden.invisible_run"), (750, 0), &["invisible_run"]),
    feature((Hidden, "hidden.bidi_override"), (250, 0), &["bidi"]),
    feature((Hidden, "hidden.bidi_attack"), (700, 200), &["bidi", "attack"]),
    feature((Hidden, "hidden.zero_width"), (700, 120), &["zero_width", "attack"]),
    feature((Hidden, "hidden.style_attack"), (700, 300), &["hide", "attack"]),
    feature((Hidden, "hidden.style_note"), (700, 200), &["hide", "note"]),
    feature((Hidden, "hidden.style_ai"), (650, 200), &["hide", "ai", "act|must|forget|reveal|stealth|steer"]),
    feature((Encoded, "encoded.payload"), (900, 0), &["payload"]),
    feature((Encoded, "encoded.rot13"), (850, 0), &["rot13"]),
    feature((Encoded, "encoded.reversed"), (850, 0), &["reversed"]),
    feature((Encoded, "encoded.leet"), (650, 80), &["leet", "attack"]),
    feature((Encoded, "encoded.disguised"), (750, 80), &["homoglyphs|spaced", "attack"]),
    feature((Encoded, "encoded.escapes"), (700, 80), &["escapes", "attack"]),
    feature((Encoded, "encoded.decode_and_obey"), (500, 60), &["decode", "comply"]),
    feature((Exfiltration, "exfiltration.system"), (600, 60), &["reveal", "your", "system"]),
    feature((Exfiltration, "exfiltration.system_verbatim"), (600, 70), &["reveal", "system", "verbatim"]),
    feature((Exfiltration, "exfiltration.system_shown"), (300, 40), &["reveal", "system"]),
    feature((Exfiltration, "exfiltration.secret_rules"), (650, 90), &["reveal", "secretrules"]),
    feature((Exfiltration, "exfiltration.your_prompt"), (550, 40), &["reveal", "yourprompt"]),
    feature((Exfiltration, "exfiltration.given_rules"), (600, 80), &["reveal", "given", "rules"]),
    feature((Exfiltration, "exfiltration.all_given"), (500, 80), &["reveal", "all", "given"]),
    feature((Exfiltration, "exfiltration.first_given"), (550, 70), &["reveal", "origin", "given"]),
    feature((Exfiltration, "exfiltration.first_rules"), (550, 90), &["reveal", "origin", "rules", "your|verbatim"]),
    feature((Exfiltration, "exfiltration.first_wording"), (550, 90), &["reveal", "origin", "wording", "verbatim|all"]),
    feature((Exfiltration, "exfiltration.operator_rules"), (550, 70), &["reveal", "operator", "rules", "verbatim|given|all"]),
    feature((Exfiltration, "exfiltration.operator_wording"), (500, 70), &["reveal", "operator", "origin", "wording"]),
    feature((Exfiltration, "exfiltration.rules_verbatim"), (550, 60), &["reveal", "your", "rules", "verbatim"]),
    feature((Exfiltration, "exfiltration.text_above"), (400, 50), &["reveal", "abovetext"]),
    feature((Exfiltration, "exfiltration.text_above_verbatim"), (600, 70), &["reveal", "abovetext", "verbatim"]),
    feature((Exfiltration, "exfiltration.data_to_address"), (550, 100), &["send", "data", "url"]),
    feature((Exfiltration, "exfiltration.data_to_mail"), (500, 80), &["send", "data", "mail"]),
    feature((Exfiltration, "exfiltration.secretly"), (650, 100), &["send", "data", "stealth"]),
    feature((Exfiltration, "exfiltration.link_data"), (600, 120), &["url", "linkdata", "data|stealth|must"]),
    feature((Exfiltration, "exfiltration.image_data"), (600, 90), &["image", "linkdata"]),
    feature((Persona, "persona.known"), (650, 0), &["dan"]),
    feature((Persona, "persona.no_limits"), (650, 120), &["become", "nolimits"]),
    feature((Persona, "persona.ai_no_limits"), (500, 80), &["ai|over", "nolimits"]),
    feature((Persona, "persona.now_no_limits"), (600, 50), &["fromnow", "nolimits"]),
    feature((Persona, "persona.few_limits"), (600, 100), &["become", "ai", "fewlimits"]),
    feature((Persona, "persona.ai_unreal"), (600, 80), &["ai", "unreal", "rules"]),
    feature((Persona, "persona.mode"), (450, 40), &["enable", "mode"]),
    feature((Persona, "persona.mode_no_limits"), (700, 120), &["mode", "nolimits"]),
    feature((Persona, "persona.harm"), (500, 110), &["become", "harm"]),
    feature((Persona, "persona.harm_no_limits"), (550, 110), &["harm", "nolimits"]),
    feature((Tools, "tools.note"), (350, 0), &["note"]),
    feature((Tools, "tools.note_then"), (650, 150), &["note", "act|steer"]),
    feature((Tools, "tools.note_must"), (550, 120), &["note", "must"]),
    feature((Tools, "tools.note_data"), (550, 150), &["note", "data"]),
    feature((Tools, "tools.note_secretly"), (700, 150), &["note", "stealth"]),
    feature((Tools, "tools.called_act"), (550, 80), &["called", "act", "tool"]),
    feature((Tools, "tools.called_secretly"), (600, 110), &["called", "stealth"]),
    feature((Tools, "tools.ai_act"), (500, 100), &["ai", "must", "act", "tool"]),
    feature((Tools, "tools.ai_secretly"), (600, 130), &["ai", "stealth", "act"]),
    feature((Tools, "tools.ai_data"), (600, 120), &["ai", "must", "send", "data"]),
    feature((Tools, "tools.act_secretly"), (500, 100), &["act", "tool", "stealth"]),
    feature((Tools, "tools.turn_act"), (550, 120), &["turn", "act", "tool"]),
    feature((Tools, "tools.shell"), (650, 120), &["shell", "ai|note"]),
    against("about.attacks", (-150, 250), &["topic"]),
    against("about.asked", (-150, 120), &["ask", "topic"]),
    against("about.guarded", (-250, 60), &["guarded"]),
    against("about.not_forgotten", (-400, 12), &["notforget", "forget"]),
    against("about.code", (-350, 100), &["asks", "code"]),
    against("about.own_rules", (-200, 25), &["mine", "forget"]),
    against("about.quoted", (-200, 60), &["quoted"]),
    against("about.quoted_attacks", (-150, 200), &["quoted", "topic"]),
];

/// What is found with its signs, rather than as words.
pub(super) const MARKS: &[(&str, &[&str])] = &[
    (
        "special",
        &[
            "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|start_header_id|>",
            "<|end_header_id|>", "<|begin_of_text|>", "<|end_of_text|>", "<|system|>", "<|user|>",
            "<|assistant|>", "<|end|>", "<|start|>", "<|channel|>", "<|message|>", "<|return|>", "<|turn|>",
            "[inst]", "[/inst]", "<<sys>>", "<</sys>>", "<start_of_turn>", "<end_of_turn>", "</s><s>",
            "<|start_of_role|>", "<|end_of_role|>", "<|begin_of_sentence|>", "<|end_of_sentence|>",
            "[system_prompt]", "[/system_prompt]", "[available_tools]", "<|tool_call|>",
        ],
    ),
    (
        "special_role",
        &[
            "<|im_start|>system", "<|im_start|>assistant", "<|im_start|>user", "<|start_header_id|>system",
            "<|start_header_id|>assistant", "<start_of_turn>model", "<start_of_turn>user", "<|start|>system",
            "<|start|>assistant", "<|start|>developer",
        ],
    ),
    (
        "turn",
        &[
            "\nsystem:", "\nsystem :", "\nsystem note", "\nsystem notice", "\nsystem message", "[system]", "[system message",
            "### system", "## system prompt", "<system>", "<system_message>", "<system_prompt>", "</system>",
            "\"role\":\"system\"", "\"role\": \"system\"", "'role': 'system'", "begin system", "[assistant](",
            "\nhuman:", "\nassistant:", ". system: ", "system override", "system: the", "<admin>", "<user>", "<instruction>", "<instructions>",
            "<important>", "developer message", "### instruction", "[système]", "\nsystème", "<système>",
            "[sistema]", "### sistema", "\nsistema:", "[система]", "\nсистема:", "[系统]", "\n系统:", "\nシステム:",
            "[시스템]", "\n시스템:", "\n[system", "system instruction:",
        ],
    ),
    (
        "closing",
        &[
            "]]>", "</document>", "</user_input>", "</tool_result>", "</tool_output>", "</context>", "</input>", "</s>",
            "</text>", "</texte>", "</texto>", "</dokument>", "</документ>", "</文档>", "</user>", "</query>",
            "</message>", "</content>", "</data>", "</instructions>", "</results>", "</function_results>",
            "\n\"\"\"\n", "```\n</", "=== end", "---end", "[end", "[fin", "\"}]}",
        ],
    ),
    (
        "hide",
        &[
            "<!--", "display:none", "display: none", "font-size:0", "font-size: 0", "font-size:1px", "font-size: 1px",
            "color:white", "color: white", "color:#fff", "color: #fff", "color=\"#fff", "color=\"white",
            "color:transparent", "opacity:0", "opacity: 0", "visibility:hidden", "visibility: hidden", "[//]: #",
            "[comment]: #", "<span hidden", "<div hidden", "<p hidden", " alt=\"", "aria-hidden=\"true\"",
            "text-indent:-", "left:-9999",
        ],
    ),
    (
        "newtask_colon",
        &[
            "new instructions:", "new instruction:", "updated instructions:", "new orders:",
            "real instructions:", "neue anweisung:", "neue anweisungen:", "nouvelles instructions :",
            "nouvelles instructions:", "nuevas instrucciones:", "nuove istruzioni:",
            "novas instruções:", "nieuwe instructies:", "nowe instrukcje:", "новые инструкции:", "新指令:", "新的指令:", "新しい指示:", "새로운 지시:", "تعليمات جديدة:", "yeni talimat:",
            "yeni talimatlar:", "नए निर्देश:",
        ],
    ),
    (
        "called",
        &[
            " assistant, ", "
assistant, ", ": assistant, ", " ai, ", "
ai, ", "@ai-agent", "@assistant", "@ai ",
            " ai agent, ", " agent, ", "\nagent, ", "ai model: ", "ai agents: ", "llm agents: ", "ai: ", "dear ai, ",
        ],
    ),
    ("image", &["![", "<img"]),
    (
        "linkdata",
        &[
            "={", "=[", "=<", "=$", "=%s", "/{", "?data=", "&data=", "?leak=", "?exfil=", "?secret=", "?k= ", "?conversation=",
            "?history=", "?prompt=",
        ],
    ),
    ("url", &["http://", "https://", "hxxp://", "hxxps://", "ftp://"]),
    ("mail", &["@"]),
    (
        "shell",
        &[
            "rm -rf", "| sh", "| bash", "|sh", "|bash", "curl http", "wget ", "/etc/passwd", "id_rsa", ".ssh/",
            "drop table", "drop the table", "&& python", "chmod 777", "nc -e",
        ],
    ),
    (
        "quoted",
        &[
            "\"ignor", "'ignor", "“ignor", "‘ignor", "`ignor", "«ignor", "« ignor", "„ignor", "「無視", "“忽略", "\"忽略",
            "\"forget", "'forget", "“forget", "`forget", "\"disregard", "'disregard", "“disregard", "`disregard",
            "\"you are now", "'you are now", "“you are now", "\"vergiss", "„vergiss", "\"oublie", "«oublie", "« oublie",
            "\"olvida", "«olvida", "“olvida", "\"dimentica", "«dimentica", "\"esqueca", "“esqueca", "\"negeer", "“negeer", "\"zignoruj",
            "„zignoruj", "«игнорируй", "«забудь", "\"игнорируй", "\"reveal", "\"show me your", "\"do anything now",
            "\"act as", "\"pretend", "\"무시", "“무시", "\"önceki", "\"تجاهل", "«تجاهل", "\"पिछले",
        ],
    ),
];

//! The annotated example file: every key with its default, made from the same definition as
//! `--help`.

use crate::cli::args::ServeArgs;
use crate::cli::config::ServeOptions;
use crate::cli::hook::HOOK_KEYS;
use crate::cli::keys::{self, KEYS};
use crate::cli::layers::{self, KEY_CLASS, KEY_WEBHOOK};
use crate::cli::webhooks::{self, Told, WEBHOOK_LISTS, WEBHOOK_NUMBERS, WebhookArg};

/// Most columns of a line of explanation.
const COLUMNS: usize = 96;
/// Of which the file has a word only: it stands in place of two others.
const KEY_PRESET: &str = "preset";

/// What a webhook has where the default is nothing.
const SAMPLE_URL: &str = "https://backend.example/hook";
const SAMPLES: [(&str, &str); 3] = [
    ("secret-file", "/etc/heartwheel/audit.key"),
    ("ca-file", "/etc/heartwheel/ca.pem"),
    ("topics", "orders"),
];

/// The whole file. Each line that begins with `#` and no space behind it is a key that is commented
/// out; without the `#` the file is what a gateway does by itself, and has what is usually not
/// there at all, such as a journal.
pub fn annotated() -> String {
    let options = ServeOptions::meant(&ServeArgs::default()).0;
    let mut page = String::from(
        "# All that `heartwheel serve` can be told. Each key is commented out and has its default, \
         or a value\n# that it could have where there is none by default. Every key is also a flag \
         and a variable:\n# drain-timeout is --drain-timeout and HEARTWHEEL_DRAIN_TIMEOUT.\n#\n\
         # heartwheel check-config --config FILE   says what is wrong, and what is in effect\n\
         # heartwheel ctl reload, or SIGHUP        takes up what has [reload] here; what has \
         [restart]\n#                                         holds from the next start on\n",
    );
    let helps = layers::helps();
    let mut headings: Vec<&str> = Vec::new();
    for (_, _, heading) in &helps {
        if !headings.contains(&heading.as_str()) {
            headings.push(heading);
        }
    }
    for heading in headings {
        let name = if heading.is_empty() { "General" } else { heading };
        page.push_str(&format!("\n# --- {name} {}\n", "-".repeat(COLUMNS - 7 - name.len())));
        for (key, help, _) in helps.iter().filter(|(_, _, own)| own == heading) {
            page.push_str(&entry(key, help, &options).unwrap_or_default());
        }
    }
    page.push_str(&class_entry(&options));
    page.push_str(&webhook_entry());
    page
}

fn entry(name: &str, help: &str, options: &ServeOptions) -> Option<String> {
    let key = keys::find(name).filter(|key| ![KEY_CLASS, KEY_WEBHOOK].contains(&key.name))?;
    let mut entry = format!("\n{}", wrapped(&format!("{help} [{}]", key.on_reload.word())));
    let sample = key.sample.map(str::to_owned);
    let value = (key.value)(options).or(sample)?;
    let value = match layers::is_bare(name) {
        true => value.replace("on", "true").replace("off", "false"),
        false => format!("\"{value}\""),
    };
    // A preset excludes the two keys that follow, and who is asked what is looked at here.
    let is_beside = name == KEY_PRESET || HOOK_KEYS.contains(&name);
    let mark = if is_beside { "#   " } else { "#" };
    entry.push_str(&format!("{mark}{name} = {value}\n"));
    Some(entry)
}

/// Tables come last: what stands behind one belongs to it.
fn class_entry(options: &ServeOptions) -> String {
    let Some(key) = KEYS.iter().find(|key| key.name == KEY_CLASS) else { return String::new() };
    let about = format!(
        "Policies of the clients that name this class; a key that is left out is as for everybody, \
         or as the preset of that name has it. Any number of tables. [{}]",
        key.on_reload.word()
    );
    let title = format!("# --- Classes {}", "-".repeat(COLUMNS - 14));
    let name = key.sample.unwrap_or("lock");
    let mut entry = format!("\n{title}\n\n{}#[class.{name}]\n", wrapped(&about));
    for (key, value) in keys::class_settings(&options.gateway.class(name)) {
        entry.push_str(&format!("#{key} = \"{value}\"\n"));
    }
    entry
}

fn webhook_entry() -> String {
    let Some(key) = keys::find(KEY_WEBHOOK) else { return String::new() };
    let about = format!(
        "A target to which events are sent in batches, in order and at least once. Only url has to \
         be there. Any number of tables. [{}]",
        key.on_reload.word()
    );
    let name = key.sample.unwrap_or("audit");
    let title = format!("# --- Webhooks {}", "-".repeat(COLUMNS - 15));
    let mut entry = format!("\n{title}\n\n{}#[webhook.{name}]\n", wrapped(&about));
    let typed =
        WebhookArg { name: name.to_owned(), url: SAMPLE_URL.parse().ok(), ..WebhookArg::default() };
    let targets = webhooks::meant(&[typed], Told::Untold).unwrap_or_default();
    for (key, value) in targets.iter().flat_map(webhooks::settings) {
        let (mark, value) = match value {
            Some(value) => ("#", value),
            // These need a file, or another stream.
            None => (
                "#   ",
                SAMPLES.iter().find(|(own, _)| *own == key).map_or("", |it| it.1).to_owned(),
            ),
        };
        let value = match key {
            _ if WEBHOOK_NUMBERS.contains(&key) => value,
            _ if WEBHOOK_LISTS.contains(&key) => format!("[\"{value}\"]"),
            _ => format!("\"{value}\""),
        };
        entry.push_str(&format!("{mark}{key} = {value}\n"));
    }
    entry
}

/// Lines of explanation.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::from("#")];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is one");
        if line.len() + 1 + word.len() <= COLUMNS {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(format!("# {word}"));
        }
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::configuration;
    use std::path::Path;

    fn file(name: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// What is wrong with a file, and what it means.
    fn checked(text: &str) -> ServeOptions {
        let folder = tempfile::tempdir().expect("room for a file");
        let path = folder.path().join("heartwheel.toml");
        std::fs::write(&path, text).expect("room for a file");
        let flags = ["--config", path.to_str().expect("text")];
        let (configuration, wrong) = configuration::read(&layers::flags_of(&flags), |_| None);
        assert!(wrong.is_empty(), "{:#?}\n{text}", wrong.lines());
        configuration.options
    }

    fn uncommented(text: &str) -> String {
        let is_key = |line: &str| {
            line.strip_prefix('#')
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '['))
        };
        let lines = text.lines().map(|line| if is_key(line) { &line[1..] } else { line });
        lines.map(|line| format!("{line}\n")).collect()
    }

    #[test]
    fn the_annotated_file_is_what_the_program_prints() {
        assert!(
            file("heartwheel.toml") == annotated(),
            "deploy/heartwheel.toml is stale: heartwheel check-config --example > it"
        );
    }

    #[test]
    fn the_annotated_file_changes_nothing_and_every_key_of_it_can_be_taken_in() {
        let defaults = ServeOptions::new(&ServeArgs::default()).expect("the defaults are fine");
        let as_it_is = checked(&annotated());
        let all = checked(&uncommented(&annotated()));
        // With who is asked in place of what is looked at here.
        let of_hook =
            annotated().replace("#   identity", "#identity").replace("\"jwt\"", "\"hook\"");
        let of_here = ["#identity-file", "#identity-issuer", "#identity-audience"];
        let lines = of_hook.lines().filter(|line| !of_here.iter().any(|key| line.starts_with(key)));
        let lines: Vec<_> = lines.collect();
        let all_of_hook = checked(&uncommented(&lines.join("\n")));
        for key in KEYS {
            let all = if HOOK_KEYS.contains(&key.name) { &all_of_hook } else { &all };
            let default = (key.value)(&defaults);
            assert_eq!((key.value)(&as_it_is), default, "{}", key.name);
            let taken = (key.value)(all);
            if key.sample.is_none() {
                assert_eq!(taken, default, "{}", key.name);
            } else {
                assert!(taken.is_some(), "{} has no line", key.name);
            }
            let line = format!("{} = ", key.name);
            assert!(
                [KEY_CLASS, KEY_WEBHOOK].contains(&key.name) || annotated().contains(&line),
                "{} has no line",
                key.name
            );
        }
    }

    #[test]
    fn the_short_file_is_fine() {
        let options = checked(&file("heartwheel-small.toml"));
        assert!(options.journal.is_some() && !options.gateway.classes.is_empty());
    }
}

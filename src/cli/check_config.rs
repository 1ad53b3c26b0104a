//! `check-config`: what `serve` would understand, without being it.

use std::fs;
use std::io;
use std::path::Path;

use clap::ArgMatches;
use serde_json::{Value, json};

use crate::cli::admin;
use crate::cli::args::{CheckConfigArgs, Descriptors, IdentityKind};
use crate::cli::config::{ConnectionsFrom, ServeOptions};
use crate::cli::configuration::{self, Configuration};
use crate::cli::error::CliError;
use crate::cli::example;
use crate::cli::hook;
use crate::cli::identity;
use crate::cli::keys::{self, KEYS};
use crate::cli::layers::{KEY_CLASS, KEY_WEBHOOK};
use crate::cli::machine;
use crate::cli::mistakes::Mistakes;
use crate::cli::origins::Origins;
use crate::cli::webhooks;
use crate::cli::write_stdout;
use crate::control::events::EventsTarget;
use crate::os::machine::Wanted;
use crate::os::process;
use crate::os::ring;

/// Runs `check-config` with what was typed as `flags`, of which `typed_wrong` was not understood.
///
/// # Errors
/// All that `serve` would not understand, or not find.
pub fn run(
    args: &CheckConfigArgs,
    flags: &ArgMatches,
    typed_wrong: Mistakes,
) -> Result<(), CliError> {
    if args.example && typed_wrong.is_empty() {
        return write_stdout(example::annotated().as_bytes());
    }
    let (configuration, wrong) = configuration::read(flags, |name| std::env::var_os(name));
    let mut mistakes = typed_wrong;
    mistakes.add(wrong);
    mistakes.add(missing_files(&configuration.options));
    let values = values(&configuration);
    let warnings = warnings(&configuration.options);
    let page = match args.json {
        true => to_json(&configuration, &values, &warnings, &mistakes),
        false if mistakes.is_empty() => to_text(&values, &warnings),
        false => String::new(),
    };
    write_stdout(page.as_bytes())?;
    match mistakes.is_empty() {
        true => Ok(()),
        false => Err(CliError::Several { mistakes }),
    }
}

/// A key, what it is in effect, and where that was said.
struct Shown {
    key: String,
    value: Option<String>,
    from: String,
    on_reload: &'static str,
}

fn values(configuration: &Configuration) -> Vec<Shown> {
    let Configuration { options, origins, .. } = configuration;
    let mut shown = Vec::new();
    for key in KEYS.iter().filter(|key| ![KEY_CLASS, KEY_WEBHOOK].contains(&key.name)) {
        shown.push(Shown {
            key: key.name.to_owned(),
            value: (key.value)(options),
            from: origin(key.name, origins),
            on_reload: key.on_reload.word(),
        });
    }
    let on_reload = keys::find(KEY_CLASS).map_or("", |key| key.on_reload.word());
    for (name, class) in options.gateway.classes_in_force() {
        for (key, value) in keys::class_settings(class) {
            let key = format!("{KEY_CLASS}.{name}.{key}");
            let from = origin(&key, origins);
            shown.push(Shown { key, value: Some(value), from, on_reload });
        }
    }
    let on_reload = keys::find(KEY_WEBHOOK).map_or("", |key| key.on_reload.word());
    for target in &options.webhooks {
        for (key, value) in webhooks::settings(target) {
            let key = format!("{KEY_WEBHOOK}.{}.{key}", target.name);
            let from = origin(&key, origins);
            shown.push(Shown { key, value, from, on_reload });
        }
    }
    shown
}

fn origin(key: &str, origins: &Origins) -> String {
    let preset = match key {
        "interval" | "timeout" => origins.of("preset").map(|origin| format!("preset, {origin}")),
        _ => None,
    };
    origins.of(key).map(str::to_owned).or(preset).unwrap_or_else(|| "default".to_owned())
}

fn to_text(values: &[Shown], warnings: &[String]) -> String {
    let wide = |cells: &mut dyn Iterator<Item = usize>| cells.max().unwrap_or(0);
    let shown =
        |value: &Shown| value.value.as_deref().unwrap_or("(none)").escape_debug().to_string();
    let keys = wide(&mut values.iter().map(|value| value.key.chars().count()));
    let texts = wide(&mut values.iter().map(|value| shown(value).chars().count()));
    let mut page = String::new();
    for value in values {
        let (key, text) = (value.key.escape_debug().to_string(), shown(value));
        let from = value.from.escape_debug();
        page.push_str(&format!("{key:<keys$}  {text:<texts$}  {from}\n"));
    }
    for warning in warnings {
        page.push_str(&format!("warning: {warning}\n"));
    }
    page
}

fn to_json(
    configuration: &Configuration,
    values: &[Shown],
    warnings: &[String],
    mistakes: &Mistakes,
) -> String {
    let shown = |value: &Shown| {
        json!({
            "key": value.key,
            "value": value.value,
            "from": value.from,
            "on_change": value.on_reload,
        })
    };
    // What is in effect is not known while something is wrong.
    let values: Vec<Value> = match mistakes.is_empty() {
        true => values.iter().map(shown).collect(),
        false => Vec::new(),
    };
    let file = configuration.args.config.as_ref().map(|path| path.display().to_string());
    let page = json!({
        "ok": mistakes.is_empty(),
        "file": file,
        "values": values,
        "warnings": warnings,
        "errors": mistakes.lines(),
    });
    format!("{page}\n")
}

/// What this machine would make of it. Another one may do better, so these are no mistakes.
fn warnings(options: &ServeOptions) -> Vec<String> {
    let mut survey = machine::survey(options.driver);
    survey.shards = options.shards;
    survey.descriptors_wanted = match options.descriptors {
        Descriptors::Auto => None,
        Descriptors::Direct => Some(ring::Descriptors::Direct),
        Descriptors::Ordinary => Some(ring::Descriptors::Ordinary),
    };
    let count = options.gateway.connections_max;
    let wanted = match options.connections_from {
        ConnectionsFrom::Asked => Wanted::Exactly(count),
        ConnectionsFrom::Default => Wanted::UpTo(count),
    };
    let mut warnings = Vec::new();
    match survey.plan(wanted) {
        Ok(plan) if plan.connections_max < count => warnings.push(format!(
            "this machine holds {} connections and not {count}; heartwheel doctor says why",
            plan.connections_max
        )),
        Ok(_) => {}
        Err(error) => warnings.push(format!("serve would not start on this machine: {error}")),
    }
    warnings.extend(machine::fallback(&survey));
    let is_proven = !matches!(options.identity.kind, IdentityKind::None | IdentityKind::Anybody);
    warnings.extend(options.edge.tls.as_ref().and_then(|tls| tls.warning(is_proven)));
    warnings.extend(options.identity.hook.as_ref().and_then(hook::warning));
    warnings.extend(options.admin.address.and_then(|address| options.admin.warning(address)));
    warnings
}

/// What the configuration names and `serve` would not find, or could not write.
fn missing_files(options: &ServeOptions) -> Mistakes {
    let mut wrong = Mistakes::default();
    wrong.keep(admin::check_files(&options.admin), ());
    wrong.keep(identity::read(options, None).map(drop), ());
    for (key, target) in
        [("events", &options.events), ("transport-events", &options.transport_events)]
    {
        if let EventsTarget::File(path) = target
            && let Err(cause) = try_file(path)
        {
            let error = CliError::FileUnwritable { path: path.clone(), cause };
            wrong.add(CliError::machine(format!("{key}: {}", error.line())));
        }
    }
    wrong.keep(webhooks::check(&options.webhooks), ());
    wrong.keep(options.edge.terms().map(|_| ()), ());
    if let Some(journal) = &options.journal
        && let Err(cause) = try_folder(&journal.folder)
    {
        let folder = journal.folder.display();
        wrong.add(CliError::machine(format!(
            "journal: cannot keep it in {folder}: {cause}; name a folder that may be written"
        )));
    }
    wrong
}

/// Whether a file could be written that is there, or made where it is not.
fn try_file(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(_) => process::may_write(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let folder = folder.unwrap_or(Path::new("."));
            match fs::metadata(folder)?.is_dir() {
                true => process::may_write(folder),
                false => Err(io::ErrorKind::NotADirectory.into()),
            }
        }
        Err(error) => Err(error),
    }
}

/// Whether a folder could be written that is there, or made with all above it that are not.
fn try_folder(folder: &Path) -> io::Result<()> {
    match fs::metadata(folder) {
        Ok(found) if !found.is_dir() => Err(io::ErrorKind::NotADirectory.into()),
        Ok(_) => process::may_write(folder),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match folder.parent() {
            Some(above) if above.as_os_str().is_empty() => process::may_write(Path::new(".")),
            Some(above) => try_folder(above),
            None => Err(error),
        },
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_can_be_made_is_as_good_as_one_that_is_there() {
        let folder = tempfile::tempdir().expect("room for a file");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("here"), "").expect("room for a file");
        assert!(try_file(&at("here")).is_ok());
        assert!(try_file(&at("new")).is_ok());
        assert!(!at("new").exists(), "looking makes nothing");
        assert!(try_file(folder.path()).is_err(), "a folder is no file");
        assert!(try_file(&at("nowhere/new")).is_err());
        assert!(try_file(&at("here/new")).is_err());
        assert!(try_folder(&at("a/b/c")).is_ok());
        assert!(!at("a").exists());
        assert!(try_folder(&at("here")).is_err());
        assert!(try_folder(&at("here/below")).is_err());
    }
}

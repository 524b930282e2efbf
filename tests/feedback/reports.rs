//! What `postrider feedback read` makes of reports as hosts and providers write them. The files in
//! `reports/` are made up by the RFCs and by what each of the programs puts into them; the first
//! line of each says what is to be read from it.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::Outcome;
use crate::world::World;

/// `bounce Permanent/NoEmail 5.1.1 ann@example.net`, `complaint abuse`, `nothing`; for each recipient.
fn said(view: &Value) -> Option<String> {
    let effects = view["effects"].as_array()?.iter().map(|effect| {
        let text = |name: &str| effect[name].as_str().unwrap_or_default().to_owned();
        let event = match text("event") {
            event if event.is_empty() => "nothing".to_owned(),
            event => event.replacen("Bounce", "bounce", 1).replacen("Complaint", "complaint", 1),
        };
        let words = [event, text("status"), text("recipient")];
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    });
    Some(effects.collect::<Vec<_>>().join("; "))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_report_is_read() -> Outcome {
    let mut world = World::direct("").await?;
    let sent = world.delivered(&["ann@example.net"], "reported").await?;
    let mut wrong = String::new();
    let mut files: Vec<_> = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/feedback/reports"))?
        .collect::<Result<_, _>>()?;
    files.sort_by_key(std::fs::DirEntry::file_name);
    for file in &files {
        let text = std::fs::read_to_string(file.path())?;
        let (wanted, message) = text.split_once("\n\n").ok_or("no first line")?;
        let wanted = wanted.trim_start_matches("# ");
        let message = message.replace("RETURN_PATH", &sent.return_path).replace("MESSAGE_ID", &sent.id);
        let name = file.file_name();
        let path = world.relay.path("report.eml");
        std::fs::write(&path, &message)?;
        let view = world.ask(&["feedback", "read", &path.display().to_string()])?;
        let found = said(&view).ok_or("no effects")?;
        if found != wanted {
            wrong.push_str(&format!("{}: wanted {wanted}, found {found}\n", name.display()));
        }
        let names_it = message.contains(&sent.return_path);
        if names_it && (view["message"] != sent.id.as_str() || view["known"] != true) {
            wrong.push_str(&format!("{}: the message is not found: {view:#}\n", name.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(files.len() >= 25, "{}", files.len());
    // It was only looked at.
    assert!(world.events(&sent.id, "Bounce")?.is_empty() && world.events(&sent.id, "Complaint")?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_follow_is_said_for_people() -> Outcome {
    let mut world = World::direct("").await?;
    let sent = world.delivered(&["ann@example.net"], "reported").await?;
    let read = |content: &str, more: &[&str]| {
        let path = world.relay.path("report.eml");
        std::fs::write(&path, content)?;
        let name = path.display().to_string();
        Ok::<_, std::io::Error>(
            String::from_utf8_lossy(&world.relay.cli(&[&["feedback", "read", &name], more].concat())?.stdout)
                .into_owned(),
        )
    };
    let bounce = sent.bounce("ann@example.net", "5.1.1", "550 5.1.1 user unknown");
    let told = read(&bounce, &[])?;
    for words in
        ["bounce, from dns; mx.example.net", &sent.id, "Bounce Permanent/NoEmail", "5.1.1", "BOUNCE", "user unknown"]
    {
        assert!(told.contains(words), "{words}\n{told}");
    }
    world.relay.cli(&["accounts", "set", "000000000001", "--suppress", "complaint"])?;
    assert!(!read(&bounce, &[])?.contains("BOUNCE"), "the account does not want that");
    // The same with a path that nobody has written.
    let forged = bounce.replace(&sent.return_path, "app@bounces.relay.test");
    let told = read(&forged, &[])?;
    assert!(told.contains("about no message") && !told.contains("Permanent"), "{told}");
    let told = read(&forged, &["--to", &sent.return_path])?;
    assert!(told.contains("Permanent/NoEmail"), "the envelope says where it came to: {told}");
    // A file that is not there, and stdin.
    assert!(world.relay.cli(&["feedback", "read", "/nowhere"]).is_err());
    let file = std::fs::File::open(world.relay.path("report.eml"))?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
    command.args(["feedback", "read", "-", "--config"]).arg(world.relay.path("relay.toml")).stdin(file);
    assert!(String::from_utf8_lossy(&command.output()?.stdout).contains("about no message"));
    Ok(())
}

//! `traild dlq`: the dead letters on the disk, and sending them again.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::Context;
use clap::builder::PossibleValue;
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{DataDirArgument, Failure, counted, talk};
use crate::deliver::dead_letter::{
    self, Content, DeadLetters, Letter, LetterFile, Letters, Line, Tally,
};
use crate::deliver::view::{JOURNAL_DAMAGED, REASONS, Sink};
use crate::trail::TrailName;
use crate::wal::DirLock;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show dead letters with their reasons, the newest last
    List {
        #[command(flatten)]
        data_dir: DataDirArgument,
        #[command(flatten)]
        of: Selection,
        /// Print the letters as they are stored, one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Hand dead letters back to the daemon, which sends them once more
    Replay {
        #[command(flatten)]
        data_dir: DataDirArgument,
        #[command(flatten)]
        of: Selection,
    },
}

/// Whose letters; without either, all.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Selection {
    /// Only those of this trail
    #[arg(long, value_name = "NAME")]
    trail: Option<TrailName>,
    /// Only those of this kind of destination
    #[arg(long, value_name = "SINK")]
    sink: Option<Sink>,
}

impl clap::ValueEnum for Sink {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.as_str()))
    }
}

pub fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::List { data_dir, of, json } => {
            let files = files(&data_dir.data_dir, &of)?;
            let mut out = BufWriter::new(io::stdout().lock());
            list(files, json, &mut out)
        }
        Command::Replay { data_dir, of } => replay(&data_dir.data_dir, &of),
    }
}

/// The files of the legs that were asked for.
fn files(data_dir: &Path, of: &Selection) -> Result<Vec<LetterFile>, Failure> {
    let directory = data_dir.join(dead_letter::DIRECTORY);
    if !directory.is_dir() && !data_dir.join("journal").is_dir() {
        let error = anyhow::anyhow!("cannot find dead letters in {}", data_dir.display());
        return Err(Failure::hinted(
            error,
            "name the daemon's data_dir with --data-dir",
        ));
    }
    let mut files = dead_letter::files(&directory)
        .with_context(|| format!("cannot read {}", directory.display()))?;
    files.retain(|file| {
        let trail = of.trail.as_ref().map(TrailName::as_str);
        trail.is_none_or(|trail| trail == file.trail)
            && of.sink.is_none_or(|sink| sink == file.sink)
    });
    Ok(files)
}

/// A file being listed, and the next letter in it.
struct Source {
    file: LetterFile,
    letters: Letters,
    next: Option<Next>,
    unreadable: u64,
}

struct Next {
    letter: Letter,
    text: Vec<u8>,
    at: Option<OffsetDateTime>,
}

impl Source {
    /// Nothing when the file is no longer there.
    fn open(file: LetterFile) -> Result<Option<Self>, Failure> {
        let opened = file
            .open()
            .with_context(|| format!("cannot read {}", file.path.display()))?;
        let Some(letters) = opened else {
            return Ok(None);
        };
        let mut source = Self {
            file,
            letters,
            next: None,
            unreadable: 0,
        };
        source.advance()?;
        Ok(Some(source))
    }

    /// Goes on to the next letter, and gives the one before it.
    fn advance(&mut self) -> Result<Option<Next>, Failure> {
        let next = loop {
            let line = self
                .letters
                .next_line()
                .with_context(|| format!("cannot read {}", self.file.path.display()))?;
            match line {
                Some(Line::Letter { letter, text }) => {
                    let at = OffsetDateTime::parse(&letter.at, &Rfc3339).ok();
                    break Some(Next { letter, text, at });
                }
                Some(Line::Unreadable { .. }) => self.unreadable += 1,
                None => break None,
            }
        };
        Ok(std::mem::replace(&mut self.next, next))
    }
}

/// Writes the letters of all files in the order of their times; each file is in that order, so that one letter of each is held.
fn list(files: Vec<LetterFile>, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let columns = Columns::of(&files);
    let mut sources = Vec::new();
    for file in files {
        sources.extend(Source::open(file)?);
    }
    let mut shown = 0_u64;
    let (mut gaps, mut damaged) = (0_u64, 0_u64);
    let mut written = Ok(());
    while written.is_ok()
        && let Some(source) = sources
            .iter_mut()
            .filter(|source| source.next.is_some())
            .min_by_key(|source| source.next.as_ref().and_then(|next| next.at))
        && let Some(Next { letter, text, at }) = source.advance()?
    {
        written = if json {
            out.write_all(&text).and_then(|()| out.write_all(b"\n"))
        } else {
            let head = match shown {
                0 => columns.head(),
                _ => String::new(),
            };
            let row = columns.row(&source.file, &letter, at);
            write!(out, "{head}{row}")
        };
        shown += 1;
        match letter.content {
            Content::Item { .. } => {}
            Content::Gap { .. } if letter.reason == JOURNAL_DAMAGED => {
                damaged = letter.events.saturating_add(damaged)
            }
            Content::Gap { .. } => gaps = letter.events.saturating_add(gaps),
        }
    }
    match written.and_then(|()| out.flush()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        written => written?,
    }
    for source in sources.iter().filter(|source| source.unreadable > 0) {
        talk(format!(
            "warning: {} of {} cannot be read and {} left out",
            counted(source.unreadable, "line"),
            source.file.path.display(),
            if source.unreadable == 1 { "is" } else { "are" },
        ));
    }
    for (events, meaning) in [(gaps, GAP), (damaged, DAMAGED)] {
        if events > 0 && !json {
            let events = counted(events, "event");
            talk(format!("{events} cannot be sent again, since {meaning}"));
        }
    }
    if shown == 0 {
        talk("no dead letters");
    }
    Ok(())
}

/// The columns' widths. They are known before the letters, which are too many to be held.
struct Columns {
    trail: usize,
    reason: usize,
}

/// `2026-01-02T03:04:05Z`.
const TIME_WIDTH: usize = 20;
/// A UUID's.
const EVENT_ID_WIDTH: usize = 36;

impl Columns {
    fn of(files: &[LetterFile]) -> Self {
        let trails = files.iter().map(|file| file.trail.len());
        let reasons = REASONS.iter().map(|reason| reason.len());
        Self {
            trail: trails.fold("TRAIL".len(), usize::max),
            reason: reasons.fold("REASON".len(), usize::max),
        }
    }

    fn head(&self) -> String {
        self.line([
            "TIME", "TRAIL", "SINK", "REASON", "EVENTS", "EVENT ID", "REPLAY", "MESSAGE",
        ])
    }

    fn row(&self, file: &LetterFile, letter: &Letter, at: Option<OffsetDateTime>) -> String {
        let at = at
            .and_then(|at| at.replace_nanosecond(0).ok())
            .and_then(|at| at.format(&Rfc3339).ok());
        let events = letter.events.to_string();
        let event_id = event_id(&letter.content);
        let cells = [
            at.as_deref().unwrap_or(&letter.at),
            &file.trail,
            file.sink.as_str(),
            &letter.reason,
            &events,
            event_id.as_deref().unwrap_or("-"),
            if file.replay.is_some() { "waits" } else { "-" },
            &letter.message,
        ];
        self.line(cells.map(plain).each_ref().map(String::as_str))
    }

    fn line(&self, cells: [&str; 8]) -> String {
        let [at, trail, sink, reason, events, event_id, replay, message] = cells;
        let Self {
            trail: trail_width,
            reason: reason_width,
        } = self;
        let line = format!(
            "{at:<TIME_WIDTH$}  {trail:<trail_width$}  {sink:<4}  {reason:<reason_width$}  {events:>6}  {event_id:<EVENT_ID_WIDTH$}  {replay:<6}  {message}"
        );
        format!("{}\n", line.trim_end())
    }
}

/// Of an event; a notification and a gap have none.
fn event_id(content: &Content) -> Option<String> {
    #[derive(Deserialize)]
    struct Event {
        #[serde(rename = "eventID")]
        event_id: String,
    }
    match content {
        Content::Item { body, .. } => {
            let event: Event = serde_json::from_str(body.get()).ok()?;
            Some(event.event_id)
        }
        Content::Gap { .. } => None,
    }
}

/// What a gap means.
const GAP: &str = "the log could not wait and no longer holds them; S3 has them";
/// What a gap means of which the reason is [`JOURNAL_DAMAGED`].
const DAMAGED: &str = "the log is damaged there; S3 may not have them either";

/// A letter's text is a destination's or an event's: nothing in it may steer a terminal.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn replay(data_dir: &Path, of: &Selection) -> Result<(), Failure> {
    let mut handed_over = 0;
    for file in files(data_dir, of)? {
        // What waits was handed over before.
        if file.replay.is_some() {
            continue;
        }
        let letters = DeadLetters::new(
            &data_dir.join(dead_letter::DIRECTORY),
            &file.trail,
            file.sink.as_str(),
        );
        let tally = letters
            .hand_over()
            .with_context(|| format!("cannot hand over {}", file.path.display()))?;
        handed_over += tally.items;
        tell(&file, &tally)?;
    }
    if handed_over == 0 {
        talk("no dead letters to send again");
        return Ok(());
    }
    talk(match DirLock::holder(data_dir)? {
        Some(holder) => format!(
            "traild is running, {holder}: it sends them now, where it still has the trail and the destination"
        ),
        None => "traild is not running: they are sent when it runs next, where it still has the trail and the destination".to_owned(),
    });
    Ok(())
}

fn tell(file: &LetterFile, tally: &Tally) -> Result<(), Failure> {
    let Tally {
        items,
        item_events,
        gaps,
        gap_events,
        damaged,
        damaged_events,
        unreadable,
    } = *tally;
    let leg = format!("{} {}", file.trail, file.sink);
    if items > 0 {
        super::print(format!(
            "{leg}: {} of {} handed back\n",
            counted(items, "letter"),
            counted(item_events, "event")
        ))?;
    }
    if gaps > 0 {
        talk(format!(
            "{leg}: {} of {} cannot be sent again, since {GAP}",
            counted(gaps, "gap"),
            counted(gap_events, "event")
        ));
    }
    if damaged > 0 {
        talk(format!(
            "{leg}: {} of {} cannot be sent again, since {DAMAGED}",
            counted(damaged, "gap"),
            counted(damaged_events, "event")
        ));
    }
    if unreadable > 0 {
        talk(format!(
            "{leg}: {} of {} cannot be read and cannot be sent again",
            counted(unreadable, "line"),
            file.path.display()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: &str = "2026-01-02T12:00:00Z";

    fn letter(at: &str, trail: &str, sink: Sink, content: Content) -> Letter {
        Letter {
            at: at.to_owned(),
            trail: trail.to_owned(),
            trail_arn: None,
            sink: sink.to_string(),
            reason: "too_large".to_owned(),
            message: "300000 bytes\u{1b}[2J\nof 262144".to_owned(),
            events: 1,
            content,
        }
    }

    fn event(body: &str) -> Content {
        Content::Item {
            position: 1,
            index: 0,
            body: serde_json::value::RawValue::from_string(body.to_owned()).unwrap(),
        }
    }

    /// A data directory with these letters, each at its time.
    fn data_dir(letters: &[Letter]) -> tempfile::TempDir {
        let data_dir = tempfile::tempdir().unwrap();
        let directory = data_dir.path().join(dead_letter::DIRECTORY);
        for letter in letters {
            let leg = DeadLetters::new(&directory, &letter.trail, &letter.sink);
            leg.append(std::slice::from_ref(letter)).unwrap();
        }
        data_dir
    }

    fn listed(data_dir: &Path, of: &Selection, json: bool) -> String {
        let mut out = Vec::new();
        list(files(data_dir, of).unwrap(), json, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn letters_of_all_legs_are_shown_in_the_order_of_time_and_cannot_steer_the_terminal() {
        let id = "0e2fa1c3-2a4b-4f0e-9d35-6a4f8f2b7d11";
        let directory = data_dir(&[
            letter("2026-01-02T11:00:00.5Z", "a.b", Sink::Sns, event("[1]")),
            letter(
                NOON,
                "main",
                Sink::Bus,
                event(&format!("{{\"eventID\":\"{id}\"}}")),
            ),
            letter(
                "2026-01-02T11:00:00Z",
                "main",
                Sink::Logs,
                Content::Gap { from: 1, to: 9 },
            ),
        ]);
        replay(
            directory.path(),
            &Selection {
                sink: Some(Sink::Sns),
                ..Selection::default()
            },
        )
        .unwrap();
        let expected = "\
TIME                  TRAIL  SINK  REASON           EVENTS  EVENT ID                              REPLAY  MESSAGE
2026-01-02T11:00:00Z  main   logs  too_large             1  -                                     -       300000 bytes [2J of 262144
2026-01-02T11:00:00Z  a.b    sns   too_large             1  -                                     waits   300000 bytes [2J of 262144
2026-01-02T12:00:00Z  main   bus   too_large             1  0e2fa1c3-2a4b-4f0e-9d35-6a4f8f2b7d11  -       300000 bytes [2J of 262144
";
        let text = listed(directory.path(), &Selection::default(), false);
        assert_eq!(text, expected);
    }

    #[test]
    fn only_what_was_asked_for_is_listed_and_handed_over() {
        let directory = data_dir(&[
            letter(NOON, "main", Sink::Bus, event("{}")),
            letter(NOON, "main", Sink::Logs, event("{}")),
            letter(NOON, "other", Sink::Bus, event("{}")),
        ]);
        let of = |trail: Option<&str>, sink| Selection {
            trail: trail.map(|name| name.parse().unwrap()),
            sink,
        };
        for (selection, letters) in [
            (of(None, None), 3),
            (of(Some("main"), None), 2),
            (of(None, Some(Sink::Bus)), 2),
            (of(Some("main"), Some(Sink::Bus)), 1),
            (of(Some("main"), Some(Sink::S3)), 0),
        ] {
            let text = listed(directory.path(), &selection, true);
            assert_eq!(text.lines().count(), letters, "{selection:?}");
        }
        replay(directory.path(), &of(Some("main"), Some(Sink::Bus))).unwrap();
        let waiting: Vec<String> = files(directory.path(), &Selection::default())
            .unwrap()
            .into_iter()
            .filter(|file| file.replay.is_some())
            .map(|file| file.stem())
            .collect();
        assert_eq!(waiting, ["main.bus"]);
    }

    #[test]
    fn json_is_what_is_stored() {
        let directory = data_dir(&[letter(NOON, "main", Sink::Bus, event("{ \"n\" : 1.0 }"))]);
        let path = directory.path().join("dead-letters/main.bus.ndjson");
        let stored = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("torn\n{stored}")).unwrap();
        let text = listed(directory.path(), &Selection::default(), true);
        assert_eq!(text, stored);
    }

    #[test]
    fn a_time_that_cannot_be_read_keeps_nobody_from_being_shown() {
        let directory = data_dir(&[
            letter("yesterday", "main", Sink::Bus, event("{}")),
            letter(NOON, "main", Sink::Bus, event("{}")),
            letter(NOON, "main", Sink::Logs, event("{}")),
        ]);
        let text = listed(directory.path(), &Selection::default(), false);
        let first: Vec<&str> = text.lines().skip(1).map(|line| &line[..9]).collect();
        assert_eq!(first, ["yesterday", "2026-01-0", "2026-01-0"]);
    }
}

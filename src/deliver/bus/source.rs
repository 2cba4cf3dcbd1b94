//! The source of an entry: the template of `sinks.event_bridge_source`, in which `{service}` stands for the service that the event is about.
//!
//! The reference of PutEvents gives no rule for sources; that of the same call in EventBridge Scheduler does (`EventBridgeParameters`): 1 to 256
//! characters, the first a letter, a digit or one of `/.-_`, and no `aws.` in front, which EventBridge lets AWS's own services alone use
//! (NotAuthorizedForSourceException). An emulator takes that, so whoever writes it in the template gets it.

use crate::deliver::fanout::Refusal;
use crate::deliver::view::REFUSED;

const SERVICE: &str = "{service}";
const AWSS_OWN: &str = "aws.";
const MAX_CHARS: usize = 256;
/// Of a service's name that a template must have room for: twice what the longest of AWS's have.
const SERVICE_CHARS: usize = 80;

/// When sources made from a template begin as only AWS's own may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AwssOwn {
    Never,
    /// For an event whose service makes it so.
    BySomeEvents,
    Always,
}

/// What is wrong with a template, in words that finish the sentence "this …".
pub fn check(template: &str) -> Result<(), String> {
    let longest = template.replace(SERVICE, &"s".repeat(SERVICE_CHARS));
    let chars = longest.chars().count();
    if !(1..=MAX_CHARS).contains(&chars) {
        return Err(format!(
            "makes sources of {chars} characters for a service of {SERVICE_CHARS}, EventBridge takes 1 to {MAX_CHARS}"
        ));
    }
    if longest.contains(['{', '}']) {
        return Err(format!("has braces around other than {SERVICE}"));
    }
    let first = |c: char| c.is_ascii_alphanumeric() || "/.-_".contains(c);
    if !longest.starts_with(first) {
        return Err("begins with other than a letter, a digit or one of '/.-_'".into());
    }
    if longest.contains(char::is_control) {
        return Err("holds control characters".into());
    }
    Ok(())
}

pub fn awss_own(template: &str) -> AwssOwn {
    let (before, is_filled) = match template.split_once(SERVICE) {
        Some((before, _)) => (before, true),
        None => (template, false),
    };
    if before.starts_with(AWSS_OWN) {
        AwssOwn::Always
    } else if is_filled && AWSS_OWN.starts_with(before) {
        AwssOwn::BySomeEvents
    } else {
        AwssOwn::Never
    }
}

/// The source of an event of this service. Refuses what only this event's service makes of a sound template.
pub fn of(template: &str, service: &str) -> Result<String, Refusal> {
    let source = template.replace(SERVICE, service);
    let chars = source.chars().count();
    if !(1..=MAX_CHARS).contains(&chars) {
        return Err(refused(format!(
            "the source has {chars} characters, EventBridge takes 1 to {MAX_CHARS}"
        )));
    }
    if source.starts_with(AWSS_OWN) && awss_own(template) != AwssOwn::Always {
        return Err(refused(format!(
            "the event's eventSource makes the source begin with \"{AWSS_OWN}\", which EventBridge lets only AWS's own services use"
        )));
    }
    Ok(source)
}

fn refused(message: String) -> Refusal {
    Refusal {
        reason: REFUSED,
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_has_room_for_any_service_and_no_braces_but_its_own() {
        let room = |chars: usize| format!("{}{SERVICE}", "t".repeat(chars));
        for good in [
            "traild.{service}",
            "audit",
            "{service}",
            "a b:{service}/é",
            &room(176),
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let long = &room(177);
        let twice = "{service}".repeat(4);
        for bad in [
            "",
            long,
            &twice,
            "traild.{servce}",
            "traild.{service",
            "traild.}",
            "{{service}}",
            "${x}",
            ":{service}",
            " x",
            "é",
            "traild.\n",
        ] {
            assert!(check(bad).is_err(), "{bad:?} passed");
        }
    }

    #[test]
    fn a_source_of_awss_own_comes_of_the_template_or_of_an_event() {
        for (template, expected) in [
            ("aws.{service}", AwssOwn::Always),
            ("aws.audit", AwssOwn::Always),
            ("{service}", AwssOwn::BySomeEvents),
            ("aws{service}", AwssOwn::BySomeEvents),
            ("traild.{service}", AwssOwn::Never),
            ("awsome.{service}", AwssOwn::Never),
            ("aws", AwssOwn::Never),
        ] {
            assert_eq!(awss_own(template), expected, "{template}");
        }
    }

    #[test]
    fn one_events_service_cannot_make_a_source_that_stops_the_others() {
        assert_eq!(of("{service}", "iam").unwrap(), "iam");
        assert_eq!(of("aws.{service}", "iam").unwrap(), "aws.iam");
        for (template, service) in [
            ("{service}", "aws.iam"),
            ("aws{service}", ".iam"),
            ("{service}", ""),
            ("traild.{service}", &"s".repeat(250)),
        ] {
            let refusal = of(template, service).unwrap_err();
            assert_eq!(refusal.reason, REFUSED, "{template} {service}");
        }
    }
}

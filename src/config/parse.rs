//! From the text of a setting to its type. Messages quote the text and say what would do.

use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use chrono::{NaiveTime, TimeDelta};
use chrono_tz::Tz;
use url::{Host, Url};
use uuid::{Uuid, Variant};

use crate::domain::decline::DeclineClass;
use crate::domain::schedule::CatchUp;

/// No duration in the configuration makes sense beyond this.
const DURATION_MAX: TimeDelta = TimeDelta::days(366);

pub(super) fn boolean(text: &str) -> Result<bool, String> {
    text.parse()
        .map_err(|_| format!("\"{text}\" is neither true nor false"))
}

/// A whole number within `range`.
pub(super) fn within<T>(range: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, String>
where
    T: FromStr + PartialOrd + Display,
{
    move |text| {
        text.parse()
            .ok()
            .filter(|number| range.contains(number))
            .ok_or_else(|| {
                format!(
                    "\"{text}\" is not a whole number from {} to {}",
                    range.start(),
                    range.end()
                )
            })
    }
}

/// A duration of at least nothing.
pub(super) fn duration(text: &str) -> Result<TimeDelta, String> {
    humantime::parse_duration(text)
        .ok()
        .and_then(|duration| TimeDelta::from_std(duration).ok())
        .filter(|duration| *duration <= DURATION_MAX)
        .ok_or_else(|| format!("\"{text}\" is not a duration of at most 366d; write for example 90s, 15m, 20h or 7d"))
}

/// A duration of more than nothing.
pub(super) fn positive_duration(text: &str) -> Result<TimeDelta, String> {
    duration(text).and_then(|duration| {
        if duration > TimeDelta::zero() {
            Ok(duration)
        } else {
            Err(format!(
                "\"{text}\" is too short; it must be longer than nothing"
            ))
        }
    })
}

/// A real duration of more than nothing.
pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    let duration = positive_duration(text)?;
    Ok(duration.to_std().expect("positive"))
}

/// `06:00` or `06:00:00`.
pub(super) fn time_of_day(text: &str) -> Result<NaiveTime, String> {
    NaiveTime::parse_from_str(text, "%H:%M")
        .or_else(|_| NaiveTime::parse_from_str(text, "%H:%M:%S"))
        .map_err(|_| format!("\"{text}\" is not a time of day; write for example 06:00"))
}

pub(super) fn zone(text: &str) -> Result<Tz, String> {
    text.parse().map_err(|_| {
        format!("\"{text}\" is not a time zone; write an IANA name, for example Europe/Warsaw")
    })
}

pub(super) fn catch_up(text: &str) -> Result<CatchUp, String> {
    match text {
        "one_now" => Ok(CatchUp::OneNow),
        "all_spaced" => Ok(CatchUp::AllSpaced),
        "skip_old" => Ok(CatchUp::SkipOld),
        "ask" => Ok(CatchUp::Ask),
        _ => Err(format!(
            "\"{text}\" is not a policy; allowed are one_now, all_spaced, skip_old and ask"
        )),
    }
}

pub(super) fn decline_class(text: &str) -> Result<DeclineClass, String> {
    DeclineClass::ALL
        .into_iter()
        .find(|class| class.as_str() == text)
        .ok_or_else(|| {
            format!(
                "\"{text}\" is not a class; allowed are never, new_card, funds, soft and technical"
            )
        })
}

/// A path segment of imoje's API. Its documents give no pattern; the samples are 20 small letters and digits.
pub(super) fn merchant_id(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if (1..=64).contains(&text.len()) && text.bytes().all(fits) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "\"{text}\" is not a merchant id; copy it from the imoje panel: letters and digits"
        ))
    }
}

/// A UUID of version 4 in small letters (imoje API, POST transaction/profile, field `serviceId`).
pub(super) fn service_id(text: &str) -> Result<Uuid, String> {
    Uuid::try_parse(text)
        .ok()
        .filter(|uuid| uuid.get_version_num() == 4 && uuid.get_variant() == Variant::RFC4122)
        .filter(|uuid| uuid.hyphenated().to_string() == text)
        .ok_or_else(|| {
            format!("\"{text}\" is not a service id; copy it from the imoje panel: a UUID of version 4 in small letters")
        })
}

/// An address to append paths to: http or https with a host, nothing after the path, no slash at its end.
pub(super) fn base_url(text: &str) -> Result<Url, String> {
    let plain = |url: &Url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    };
    let mut url: Url = Url::parse(text).ok().filter(plain).ok_or_else(|| {
        format!("\"{text}\" is not an address; write for example https://host/path, without user, query or fragment")
    })?;
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

/// An address to append paths to that keeps what is sent secret: https, or http that does not leave the machine.
pub(super) fn private_base_url(text: &str) -> Result<Url, String> {
    base_url(text).and_then(|url| {
        if url.scheme() == "https" || is_loopback(&url) {
            Ok(url)
        } else {
            Err(format!("\"{text}\" would send secrets unencrypted; use https, or http on 127.0.0.1, ::1 or localhost"))
        }
    })
}

/// Whether what is sent to `url` stays on this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_positive_and_at_most_a_year() {
        for (text, seconds) in [
            ("90s", 90),
            ("15m", 900),
            ("20h", 72_000),
            ("7d", 604_800),
            ("1h 30m", 5_400),
        ] {
            assert_eq!(duration(text), Ok(TimeDelta::seconds(seconds)));
        }
        assert_eq!(duration("0s"), Ok(TimeDelta::zero()));
        for text in ["", "5", "-5s", "5 parsecs", "367d", "99999999999y"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
        assert!(positive_duration("0s").is_err());
        assert_eq!(timeout("1500ms"), Ok(Duration::from_millis(1_500)));
    }

    #[test]
    fn numbers_keep_to_their_range() {
        let number = within(1..=15u16);
        assert_eq!(number("15"), Ok(15));
        for text in ["0", "16", "-1", "1.5", "", " 1", "99999999999"] {
            assert!(number(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_time_of_day_has_hours_and_minutes() {
        for text in ["06:00", "06:00:00"] {
            assert_eq!(
                time_of_day(text),
                Ok(NaiveTime::from_hms_opt(6, 0, 0).unwrap())
            );
        }
        for text in ["", "6", "24:00", "06:60", "6 am"] {
            assert!(time_of_day(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_service_id_is_what_imoje_gives_out() {
        assert!(service_id("2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b").is_ok());
        for text in [
            "",
            "SERVICE-ID",
            "2B8A4E1C-9D37-4F60-8A55-0C6E7D1F2A3B",
            "2b8a4e1c9d374f608a550c6e7d1f2a3b",
            "2b8a4e1c-9d37-7f60-8a55-0c6e7d1f2a3b",
            "2b8a4e1c-9d37-4f60-ca55-0c6e7d1f2a3b",
        ] {
            assert!(service_id(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_merchant_id_is_one_segment_of_a_path() {
        assert!(merchant_id("simmerchant000000001").is_ok());
        for text in ["", ".", "..", "a/b", "a b", "a%2f"] {
            assert!(merchant_id(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn secrets_travel_encrypted_or_stay_on_the_machine() {
        for (text, url) in [
            (
                "https://api.imoje.pl/v1/merchant/",
                "https://api.imoje.pl/v1/merchant",
            ),
            (
                "http://127.0.0.1:8080/v1/merchant",
                "http://127.0.0.1:8080/v1/merchant",
            ),
            ("http://[::1]:8080/x", "http://[::1]:8080/x"),
            ("http://localhost", "http://localhost/"),
        ] {
            assert_eq!(private_base_url(text).unwrap().as_str(), url);
        }
        for text in [
            "",
            "api.imoje.pl",
            "http://api.imoje.pl/v1/merchant",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com",
            "ftp://127.0.0.1",
            "https://user:password@host",
            "https://host/?query",
            "https://host/#fragment",
        ] {
            assert!(private_base_url(text).is_err(), "{text:?}");
        }
    }
}

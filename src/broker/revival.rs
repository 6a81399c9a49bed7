//! The way back from the dead-letter queue: the message as it was published, with what dead-lettering changed undone.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldArray, FieldTable, ShortString};

use super::connection::Line;
use super::corpse::{Corpse, Origin};
use super::dead_letter::{DIRECT_REPLY_TO, ORIGINAL_PREFIX, PREFIX, REPLAYS, text};
use super::morgue::is_user;
use super::press::Letter;
use super::topology::Names;

/// The broker's headers on the first and last death of a message; those on others' queues stay.
const DEATHS: [&str; 2] = ["x-first-death-", "x-last-death-"];
/// Book-keeping of the broker's that the next reader would take for true.
const COUNTS: [&str; 2] = ["x-delivery-count", "x-acquired-count"];

/// A message to publish again, and what could not be as it was.
#[derive(Debug)]
pub(crate) struct Revival {
    pub(crate) letter: Letter,
    /// Properties that stay headers, `x-original-<name>`, as the broker would refuse them from us.
    pub(crate) kept_back: Vec<&'static str>,
}

/// Makes `corpse` what it was, with `body` instead of its own if there is one.
///
/// # Errors
/// A name that doesn't fit AMQP.
pub(crate) fn revive(
    corpse: &Corpse,
    origin: &Origin,
    body: Option<Vec<u8>>,
    names: &Names,
    line: &Line,
) -> Result<Revival, String> {
    let short =
        |name: &str| ShortString::try_new(name).map_err(|_| "a name has more than 255 bytes".to_owned());
    let is_ours = |user: &ShortString| is_user(line, user);
    let (mut properties, kept_back) = properties(corpse, &is_ours, [&names.queue, &names.dead_queue])?;
    if body.is_some() {
        // A body that was put together anew is not compressed.
        properties = copy(&properties, "content_encoding");
    }
    let letter = Letter {
        exchange: short(&origin.exchange)?,
        routing_key: short(&origin.routing_key)?,
        properties,
        body: body.unwrap_or_else(|| corpse.body.clone()),
    };
    Ok(Revival { letter, kept_back })
}

type Properties = (BasicProperties, Vec<&'static str>);

fn properties(
    corpse: &Corpse,
    is_ours: &dyn Fn(&ShortString) -> bool,
    queues: [&ShortString; 2],
) -> Result<Properties, String> {
    let mut kept_back = Vec::new();
    let mut headers = headers(corpse, queues);
    let dead = &corpse.properties;
    let mut properties = dead.clone();
    let death = corpse.last_death().filter(|_| corpse.word("reason").is_none());
    let mut original = |name: &str| {
        let value = headers.remove(format!("{ORIGINAL_PREFIX}{name}").as_str())?;
        value.as_long_string().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let expiration = original("expiration").or_else(|| death.and_then(|death| death.expiration));
    let user = original("user_id").or_else(|| dead.user_id().as_ref().map(ToString::to_string));
    let reply_to = original("reply_to").or_else(|| dead.reply_to().as_ref().map(ToString::to_string));
    let short = |name: String| ShortString::try_new(name).map_err(|_| "a property is too long".to_owned());
    if let Some(expiration) = expiration {
        properties = properties.with_expiration(short(expiration)?);
    }
    if let Some(user) = user {
        let user = short(user)?;
        properties = copy(&properties, "user_id");
        if is_ours(&user) {
            properties = properties.with_user_id(user);
        } else {
            headers.insert(format!("{ORIGINAL_PREFIX}user_id").into(), text(user.as_str()));
            kept_back.push("user_id");
        }
    }
    if let Some(reply_to) = reply_to {
        if reply_to.starts_with(DIRECT_REPLY_TO) {
            properties = copy(&properties, "reply_to");
            headers.insert(format!("{ORIGINAL_PREFIX}reply_to").into(), text(reply_to));
            kept_back.push("reply_to");
        } else {
            properties = properties.with_reply_to(short(reply_to)?);
        }
    }
    Ok((properties.with_headers(FieldTable::from(headers)), kept_back))
}

type Headers = std::collections::BTreeMap<ShortString, AMQPValue>;

/// The headers of the publisher's, and how often the message was replayed, this time included.
fn headers(corpse: &Corpse, queues: [&ShortString; 2]) -> Headers {
    let mut headers = Headers::new();
    let mut deaths_stay = false;
    for (name, value) in corpse.properties.headers().iter().flatten() {
        let (own, word) = (name.as_str().starts_with(PREFIX), name.as_str());
        if own || COUNTS.contains(&word) {
            continue;
        }
        match (word, value) {
            ("x-death", AMQPValue::FieldArray(deaths)) => {
                let others = others(deaths, queues);
                deaths_stay = !others.as_slice().is_empty();
                if deaths_stay {
                    headers.insert(name.clone(), AMQPValue::FieldArray(others));
                }
            }
            ("x-original-CC" | "x-original-BCC", value) => {
                headers.insert(word.trim_start_matches(ORIGINAL_PREFIX).into(), value.clone());
            }
            (_, value) => {
                headers.insert(name.clone(), value.clone());
            }
        }
    }
    if !deaths_stay {
        headers.retain(|name, _| !DEATHS.iter().any(|death| name.as_str().starts_with(death)));
    }
    let replays = corpse.number("replays").unwrap_or(0).saturating_add(1);
    headers.insert(REPLAYS.into(), AMQPValue::LongLongInt(replays as i64));
    headers
}

/// The deaths in other queues than ours.
fn others(deaths: &FieldArray, queues: [&ShortString; 2]) -> FieldArray {
    let is_ours = |death: &AMQPValue| {
        let queue = death.as_field_table().and_then(|table| table.inner().get("queue"));
        let queue = queue.and_then(AMQPValue::as_long_string);
        queue.is_some_and(|queue| queues.iter().any(|ours| ours.as_str().as_bytes() == queue.as_bytes()))
    };
    FieldArray::from(deaths.as_slice().iter().filter(|death| !is_ours(death)).cloned().collect::<Vec<_>>())
}

/// A property can be set, but not taken away: so all the others are copied.
fn copy(original: &BasicProperties, without: &str) -> BasicProperties {
    let mut copy = BasicProperties::default();
    macro_rules! copy {
        ($($name:literal: $read:ident => $write:ident),*) => {
            $(if let Some(value) = original.$read() && without != $name { copy = copy.$write(value.clone()); })*
        };
    }
    copy!(
        "": content_type => with_content_type, "content_encoding": content_encoding => with_content_encoding,
        "": headers => with_headers, "": delivery_mode => with_delivery_mode, "": priority => with_priority,
        "": correlation_id => with_correlation_id, "reply_to": reply_to => with_reply_to,
        "": expiration => with_expiration, "": message_id => with_message_id, "": timestamp => with_timestamp,
        "": kind => with_type, "user_id": user_id => with_user_id, "": app_id => with_app_id,
        "": cluster_id => with_cluster_id
    );
    copy
}

#[cfg(test)]
mod tests {
    use lapin::message::Delivery;

    use super::*;

    fn corpse(properties: BasicProperties) -> Corpse {
        let mut delivery = Delivery::mock(1, "dlx".into(), "key".into(), false, b"body".to_vec());
        delivery.properties = properties;
        Corpse::new(delivery, None)
    }

    fn revived(properties: BasicProperties) -> Properties {
        let is_ours = |user: &ShortString| user.as_str() == "me";
        super::properties(&corpse(properties), &is_ours, [&"deletions".into(), &"deletions.dead".into()])
            .expect("everything fits")
    }

    fn with(headers: &[(&str, AMQPValue)]) -> BasicProperties {
        let mut table = FieldTable::default();
        for (name, value) in headers {
            table.insert((*name).into(), value.clone());
        }
        BasicProperties::default().with_headers(table)
    }

    fn replays(count: i64) -> (&'static str, AMQPValue) {
        (REPLAYS, AMQPValue::LongLongInt(count))
    }

    #[test]
    fn what_dead_lettering_changed_is_undone() {
        let cc = AMQPValue::FieldArray(vec![text("elsewhere")].into());
        let dead = with(&[
            ("x-deletion-reason", text("rejected")),
            ("x-deletion-publish", AMQPValue::LongLongInt(3)),
            ("x-delivery-count", AMQPValue::LongLongInt(3)),
            ("x-original-expiration", text("60000")),
            ("x-original-user_id", text("me")),
            ("x-original-CC", cc.clone()),
            ("x-mine", text("kept")),
        ])
        .with_delivery_mode(2)
        .with_reply_to("answers".into());
        let original = with(&[("x-mine", text("kept")), ("CC", cc), replays(1)])
            .with_delivery_mode(2)
            .with_reply_to("answers".into())
            .with_expiration("60000".into())
            .with_user_id("me".into());
        assert_eq!(revived(dead), (original, vec![]));
    }

    #[test]
    fn what_the_broker_would_refuse_stays_a_header() {
        let reply = "amq.rabbitmq.reply-to.x";
        let expected =
            with(&[("x-original-user_id", text("other")), ("x-original-reply_to", text(reply)), replays(4)]);
        let by_worker =
            with(&[("x-original-user_id", text("other")), ("x-original-reply_to", text(reply)), replays(3)]);
        let by_broker = with(&[replays(3)]).with_user_id("other".into()).with_reply_to(reply.into());
        for dead in [by_worker, by_broker] {
            assert_eq!(revived(dead), (expected.clone(), vec!["user_id", "reply_to"]));
        }
    }

    #[test]
    fn the_broker_s_history_goes_as_far_as_it_is_ours() {
        let death = |queue: &str| {
            let mut table = FieldTable::default();
            table.insert("queue".into(), text(queue));
            table.insert("original-expiration".into(), text("5000"));
            AMQPValue::FieldTable(table)
        };
        let deaths = |queues: &[&str]| {
            AMQPValue::FieldArray(queues.iter().map(|queue| death(queue)).collect::<Vec<_>>().into())
        };
        let first = ("x-first-death-queue", text("deletions"));
        let (properties, _) = revived(with(&[("x-death", deaths(&["deletions"])), first.clone()]));
        assert_eq!(properties, with(&[replays(1)]).with_expiration("5000".into()));
        let (properties, _) = revived(with(&[("x-death", deaths(&["deletions", "theirs"])), first.clone()]));
        let expected = with(&[("x-death", deaths(&["theirs"])), first, replays(1)]);
        assert_eq!(properties, expected.with_expiration("5000".into()));
    }
}

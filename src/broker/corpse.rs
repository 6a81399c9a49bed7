//! A dead letter as it lies in the queue, and what its headers say, whoever put it there.

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde_json::{Map, Number, Value, json};

use super::dead_letter::PREFIX;

/// A dead letter.
#[derive(Debug)]
pub(crate) struct Corpse {
    /// As it was published, byte for byte.
    pub(crate) body: Vec<u8>,
    pub(super) properties: BasicProperties,
    /// What had to be replaced to make it readable just now.
    pub(crate) repaired: Option<String>,
}

/// Where a letter was published to before it died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) exchange: String,
    pub(crate) routing_key: String,
}

/// One entry of the broker's own history, `x-death`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Death {
    pub(crate) reason: String,
    pub(crate) queue: String,
    pub(crate) exchange: String,
    pub(crate) routing_key: Option<String>,
    /// Seconds since 1970.
    pub(crate) time: Option<u64>,
    /// What the broker took away so that the letter would not expire once more.
    pub(crate) expiration: Option<String>,
}

impl Corpse {
    pub(super) fn new(delivery: Delivery, repaired: Option<String>) -> Self {
        Self { body: delivery.data, properties: delivery.properties, repaired }
    }

    /// A header, whatever its name and type.
    pub(super) fn header(&self, name: &str) -> Option<&AMQPValue> {
        self.properties.headers().as_ref()?.inner().get(name)
    }

    /// One of the worker's headers, as text.
    pub(crate) fn word(&self, name: &str) -> Option<String> {
        text(self.header(&format!("{PREFIX}{name}"))?)
    }

    /// One of the worker's headers, as a number; timestamps are seconds since 1970.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        number(self.header(&format!("{PREFIX}{name}"))?)
    }

    /// The IDs that failed, as far as the header has room for them.
    pub(crate) fn failed_ids(&self) -> Vec<String> {
        match self.header(&format!("{PREFIX}failed-ids")).and_then(AMQPValue::as_array) {
            Some(ids) => ids.as_slice().iter().filter_map(text).collect(),
            None => Vec::new(),
        }
    }

    /// How often the letter was given back, as far as the broker counts that.
    pub(super) fn returns(&self) -> u64 {
        self.header("x-delivery-count").and_then(number).unwrap_or(0)
    }

    /// What the broker itself says of the last time it dead-lettered this.
    pub(crate) fn last_death(&self) -> Option<Death> {
        let deaths = self.header("x-death")?.as_array()?.as_slice();
        let table = deaths.first()?.as_field_table()?.inner();
        let word = |name: &str| table.get(name).and_then(text);
        let routing_keys = table.get("routing-keys").and_then(AMQPValue::as_array);
        Some(Death {
            reason: word("reason").unwrap_or_default(),
            queue: word("queue").unwrap_or_default(),
            exchange: word("exchange").unwrap_or_default(),
            routing_key: routing_keys.and_then(|keys| text(keys.as_slice().first()?)),
            time: table.get("time").and_then(number),
            expiration: word("original-expiration"),
        })
    }

    /// Where it was published to.
    pub(crate) fn origin(&self) -> Option<Origin> {
        let ours = self.word("exchange").zip(self.word("routing-key"));
        let origin =
            ours.or_else(|| self.last_death().and_then(|death| Some((death.exchange, death.routing_key?))));
        origin.map(|(exchange, routing_key)| Origin { exchange, routing_key })
    }

    /// `content_type` and `content_encoding`.
    pub(crate) fn content(&self) -> (Option<&str>, Option<&str>) {
        (
            self.properties.content_type().as_ref().map(ShortString::as_str),
            self.properties.content_encoding().as_ref().map(ShortString::as_str),
        )
    }

    /// Who published it, by the properties alone.
    pub(crate) fn publisher(&self) -> Option<String> {
        let app = self.properties.app_id().as_ref().map(ToString::to_string);
        let user = || self.properties.user_id().as_ref().map(ToString::to_string);
        app.or_else(user).or_else(|| text(self.header("x-original-user_id")?))
    }

    /// All properties but the headers, by their names in AMQP.
    pub(crate) fn properties(&self) -> Map<String, Value> {
        let mut all = Map::new();
        macro_rules! put {
            ($($name:literal = $read:ident),*) => {
                $(if let Some(value) = self.properties.$read() {
                    all.insert($name.to_owned(), json!(value.as_str()));
                })*
            };
        }
        put!(
            "content_type" = content_type,
            "content_encoding" = content_encoding,
            "correlation_id" = correlation_id,
            "reply_to" = reply_to,
            "expiration" = expiration,
            "message_id" = message_id,
            "type" = kind,
            "user_id" = user_id,
            "app_id" = app_id,
            "cluster_id" = cluster_id
        );
        let mut put = |name: &str, value: Option<u64>| {
            value.map(|value| all.insert(name.to_owned(), json!(value)));
        };
        put("delivery_mode", self.properties.delivery_mode().map(Into::into));
        put("priority", self.properties.priority().map(Into::into));
        put("timestamp", *self.properties.timestamp());
        all
    }

    /// All headers. What JSON has no type for is an object of one member that names its AMQP type.
    pub(crate) fn headers(&self) -> Map<String, Value> {
        self.properties.headers().as_ref().map(table).unwrap_or_default()
    }
}

fn table(table: &FieldTable) -> Map<String, Value> {
    table.inner().iter().map(|(name, value)| (name.to_string(), json(value))).collect()
}

fn json(value: &AMQPValue) -> Value {
    let bytes = |bytes: &[u8]| json!({ "base64": crate::text::base64(bytes) });
    let float = |value: f64| {
        Number::from_f64(value).map_or_else(|| json!({ "double": value.to_string() }), Value::Number)
    };
    match value {
        AMQPValue::Boolean(value) => json!(value),
        AMQPValue::ShortShortInt(value) => json!({ "int8": value }),
        AMQPValue::ShortShortUInt(value) => json!({ "uint8": value }),
        AMQPValue::ShortInt(value) => json!({ "int16": value }),
        AMQPValue::ShortUInt(value) => json!({ "uint16": value }),
        AMQPValue::LongInt(value) => json!({ "int32": value }),
        AMQPValue::LongUInt(value) => json!({ "uint32": value }),
        AMQPValue::LongLongInt(value) => json!(value),
        AMQPValue::Float(value) => json!({ "float": float((*value).into()) }),
        AMQPValue::Double(value) => float(*value),
        AMQPValue::DecimalValue(value) => {
            json!({ "decimal": { "scale": value.scale, "value": value.value } })
        }
        AMQPValue::ShortString(text) => json!({ "short_string": text.as_str() }),
        AMQPValue::LongString(text) => match str::from_utf8(text.as_bytes()) {
            Ok(text) => json!(text),
            Err(_) => bytes(text.as_bytes()),
        },
        AMQPValue::FieldArray(values) => values.as_slice().iter().map(json).collect(),
        AMQPValue::Timestamp(seconds) => json!({ "timestamp": seconds }),
        AMQPValue::FieldTable(inner) => json!({ "table": table(inner) }),
        AMQPValue::ByteArray(array) => json!({ "byte_array": crate::text::base64(array.as_slice()) }),
        AMQPValue::Void => Value::Null,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "text or not is all that matters")]
fn text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "numbers only")]
fn number(value: &AMQPValue) -> Option<u64> {
    match value {
        AMQPValue::Timestamp(seconds) => Some(*seconds),
        AMQPValue::LongLongInt(value) => u64::try_from(*value).ok(),
        AMQPValue::LongInt(value) => u64::try_from(*value).ok(),
        AMQPValue::LongUInt(value) => Some((*value).into()),
        AMQPValue::ShortInt(value) => u64::try_from(*value).ok(),
        AMQPValue::ShortUInt(value) => Some((*value).into()),
        AMQPValue::ShortShortInt(value) => u64::try_from(*value).ok(),
        AMQPValue::ShortShortUInt(value) => Some((*value).into()),
        _ => None,
    }
}

//! Selectors evaluated the plain way, from CloudTrail's JSON and its documents alone: what the compiled ones are measured against.

use serde_json::Value;

/// Whether a trail with these basic selectors, as in PutEventSelectors, records `event`.
pub fn basic(selectors: &Value, event: &Value) -> bool {
    list(selectors)
        .iter()
        .any(|selector| basic_selects(selector, event))
}

fn basic_selects(selector: &Value, event: &Value) -> bool {
    let wanted_direction = match text(&selector["ReadWriteType"]) {
        Some("ReadOnly") => read_only(event),
        Some("WriteOnly") => !read_only(event),
        _ => true,
    };
    let source = &event["eventSource"];
    let wanted = match text(&event["eventCategory"]) {
        Some("Management") => {
            selector["IncludeManagementEvents"] != false
                && !list(&selector["ExcludeManagementEventSources"]).contains(source)
        }
        Some("Data") => list(&selector["DataResources"])
            .iter()
            .any(|wanted| has_data_resource(wanted, event)),
        _ => false,
    };
    wanted_direction && wanted
}

fn has_data_resource(wanted: &Value, event: &Value) -> bool {
    list(&event["resources"]).iter().any(|resource| {
        let arn = text(arn_of(resource));
        let values = list(&wanted["Values"]);
        resource["type"] == wanted["Type"]
            && values
                .iter()
                .filter_map(text)
                .any(|value| match (value, text(&wanted["Type"])) {
                    ("arn:aws:s3" | "arn:aws:s3:::" | "arn:aws:lambda" | "arn:aws:dynamodb", _) => {
                        true
                    }
                    (_, Some("AWS::S3::Object")) => arn.is_some_and(|arn| arn.starts_with(value)),
                    _ => arn == Some(value),
                })
    })
}

/// Whether a trail with these advanced selectors records `event`.
pub fn advanced(selectors: &Value, event: &Value) -> bool {
    let none = vec![Value::Null];
    let resources = list(&event["resources"]);
    list(selectors).iter().any(|selector| {
        // One resource must satisfy all that is said of resources.
        let tried = if resources.is_empty() {
            &none
        } else {
            resources
        };
        tried.iter().any(|resource| {
            list(&selector["FieldSelectors"])
                .iter()
                .all(|field| field_selects(field, event, resource))
        })
    })
}

fn field_selects(selector: &Value, event: &Value, resource: &Value) -> bool {
    let value = match text(&selector["Field"]).unwrap() {
        "resources.type" => string(&resource["type"]),
        "resources.ARN" => string(arn_of(resource)),
        "userIdentity.arn" => string(&event["userIdentity"]["arn"]),
        "readOnly" => Some(read_only(event).to_string()),
        field => string(&event[field]),
    };
    let any = |operator: &str, fits: fn(&str, &str) -> bool| {
        value.as_ref().is_some_and(|value| {
            list(&selector[operator])
                .iter()
                .filter_map(text)
                .any(|wanted| fits(value, wanted))
        })
    };
    let equals = |value: &str, wanted: &str| value == wanted;
    let starts = |value: &str, wanted: &str| value.starts_with(wanted);
    let ends = |value: &str, wanted: &str| value.ends_with(wanted);
    let positive = ["Equals", "StartsWith", "EndsWith"];
    let has_positive = positive.iter().any(|name| selector.get(name).is_some());
    let wanted = any("Equals", equals) || any("StartsWith", starts) || any("EndsWith", ends);
    let unwanted =
        any("NotEquals", equals) || any("NotStartsWith", starts) || any("NotEndsWith", ends);
    (!has_positive || wanted) && !unwanted
}

fn read_only(event: &Value) -> bool {
    event["readOnly"] == true || event["readOnly"] == "true"
}

fn arn_of(resource: &Value) -> &Value {
    match &resource["ARN"] {
        Value::String(_) => &resource["ARN"],
        _ => &resource["ARNPrefix"],
    }
}

fn string(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

fn text(value: &Value) -> Option<&str> {
    value.as_str()
}

fn list(value: &Value) -> &Vec<Value> {
    static EMPTY: Vec<Value> = Vec::new();
    value.as_array().unwrap_or(&EMPTY)
}

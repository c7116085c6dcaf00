//! The annotation `google.api.http` of a method: which request of HTTP it is called by. It must not know how a request is bound.

use http::Method;
use prost_reflect::{DescriptorPool, DynamicMessage, ExtensionDescriptor, MethodDescriptor, Value};

use super::template::Template;

/// Which part of the request message the body is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyRule {
    /// None: there is no body.
    None,
    /// All that the path does not bind.
    Whole,
    /// One field.
    Field(String),
}

/// One request of HTTP that a method is called by.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The method of HTTP.
    pub verb: Method,
    /// The paths.
    pub template: Template,
    /// The path template as it is written.
    pub text: String,
    /// What the body is.
    pub body: BodyRule,
}

/// The annotation.
pub struct Annotation(ExtensionDescriptor);

impl Annotation {
    /// The annotation as the descriptors define it.
    ///
    /// # Errors
    /// If they do not.
    pub fn of(pool: &DescriptorPool) -> Result<Annotation, String> {
        let found = pool.get_extension_by_name("google.api.http");
        found.map(Annotation).ok_or_else(|| "the descriptors do not define google.api.http".to_owned())
    }

    /// The rules of a method: none if it is not annotated, several if it has additional bindings.
    ///
    /// # Errors
    /// What of them is not supported.
    pub fn rules(&self, method: &MethodDescriptor) -> Result<Vec<Rule>, String> {
        let options = method.options();
        let annotated = options.has_extension(&self.0);
        let rule = options.get_extension(&self.0);
        let Some(rule) = rule.as_message().filter(|_| annotated) else {
            return Ok(Vec::new());
        };
        let mut rules = vec![read(rule)];
        if let Some(additional) = rule.get_field_by_name("additional_bindings") {
            rules.extend(additional.as_list().into_iter().flatten().filter_map(Value::as_message).map(read));
        }
        rules.into_iter().map(|rule| rule.map_err(|why| format!("{}: {why}", method.full_name()))).collect()
    }
}

fn read(rule: &DynamicMessage) -> Result<Rule, String> {
    let text = |message: &DynamicMessage, name: &str| {
        let value = message.get_field_by_name(name);
        value.and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
    };
    if !text(rule, "response_body").is_empty() {
        return Err("response_body is not supported: the envelope says what of a reply is sent".to_owned());
    }
    let verb =
        ["get", "put", "post", "delete", "patch", "custom"].into_iter().find(|verb| rule.has_field_by_name(verb));
    let (verb, template) = match verb {
        Some("custom") => {
            let custom = rule.get_field_by_name("custom");
            let custom = custom.as_ref().and_then(|custom| custom.as_message()).ok_or("the rule is no rule")?;
            (text(custom, "kind"), text(custom, "path"))
        }
        Some(verb) => (verb.to_uppercase(), text(rule, verb)),
        None => return Err("the rule has no method of HTTP".to_owned()),
    };
    if !verb.bytes().all(|byte| byte.is_ascii_uppercase()) || ["HEAD", "OPTIONS", ""].contains(&verb.as_str()) {
        return Err(format!("the method {verb:?} is not supported"));
    }
    let body = match text(rule, "body").as_str() {
        "" => BodyRule::None,
        "*" => BodyRule::Whole,
        field => BodyRule::Field(field.to_owned()),
    };
    Ok(Rule {
        verb: Method::from_bytes(verb.as_bytes()).map_err(|_| format!("{verb:?} is no method of HTTP"))?,
        template: Template::parse(&template)?,
        text: template,
        body,
    })
}

//! Compiles `proto/` without a system protoc, keeps the descriptor set for reflection, and turns the annotations of the RPCs
//! into the table of operations, so that paths, routes, scopes and names are written down once.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, Value};

const SERVICE: &str = "attachments.v2.AttachmentService";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true);
    // What refusals carry is not imported by the service, but clients that know it by reflection alone shall be able to read it.
    for file in ["attachments/v2/attachments.proto", "google/rpc/error_details.proto", "google/rpc/status.proto"] {
        compiler.open_file(file)?;
    }
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    fs::write(out.join("operations.rs"), operations(&compiler.descriptor_pool())?)?;

    let mut attachments = compiler.file_descriptor_set();
    attachments.file.retain(|file| !["google.api", "google.rpc"].contains(&file.package()));
    // `Bytes` decodes a chunk as a slice of the arriving frame; `Vec<u8>` would copy it.
    tonic_prost_build::configure().bytes(".").compile_fds(attachments)?;
    Ok(())
}

/// Writes the table of operations: an enumeration of the RPCs, and for each what its annotations say.
fn operations(pool: &DescriptorPool) -> Result<String, Box<dyn Error>> {
    let extension = |name| pool.get_extension_by_name(name).ok_or(format!("the extension {name} is not in the protos"));
    let (http, scope) = (extension("google.api.http")?, extension("attachments.v2.scope")?);
    let service = pool.get_service_by_name(SERVICE).ok_or("the service is not in the protos")?;
    let (mut names, mut rows, mut routes) = (Vec::new(), String::new(), String::new());
    let (mut over_rest, mut over_grpc_only) = (Vec::new(), Vec::new());
    for method in service.methods() {
        let (name, options) = (method.name().to_owned(), method.options());
        let scope = options.get_extension(&scope).as_str().map(str::to_owned).unwrap_or_default();
        let scope = scope.strip_prefix("attachments:").filter(|right| !right.is_empty());
        let scope = capitalised(scope.ok_or(format!("{name} has no scope that begins with attachments:"))?);
        let route = match options.get_extension(&http).as_ref() {
            Value::Message(rule) if options.has_extension(&http) => {
                let (verb, template, fields) = route(&method, rule)?;
                let constant = snake(&name).to_uppercase();
                routes += &format!(
                    "/// The REST route of `{name}`.\n\
                     pub const {constant}: Route = Route {{ method: {verb:?}, template: {template:?} }};\n"
                );
                // The adapter of an upload binds the path by itself, and that of a download is like it.
                if method.is_client_streaming() {
                    routes += &format!(
                        "/// The fields of its request that the path binds, in order.\n\
                         pub const {constant}_FIELDS: [&str; {}] = {fields:?};\n",
                        fields.len()
                    );
                }
                over_rest.push(name.clone());
                format!("Some(&{constant})")
            }
            _ => {
                over_grpc_only.push(name.clone());
                "None".to_owned()
            }
        };
        let action = snake(name.trim_end_matches('s').trim_end_matches("Attachment"));
        rows += &format!(
            "Rpc::{name} => &Row {{ name: {name:?}, path: \"/{SERVICE}/{name}\", action: {action:?}, scope: Scope::{scope}, \
             takes_content: {}, gives_content: {}, route: {route} }},\n",
            method.is_client_streaming(),
            method.is_server_streaming()
        );
        names.push(name);
    }
    let variants: String = names.iter().map(|name| format!("/// `{name}`.\n{name},\n")).collect();
    let all = names.iter().map(|name| format!("Rpc::{name}")).collect::<Vec<_>>().join(", ");
    Ok(format!(
        "/// An RPC of the service.\n\
         #[derive(Clone, Copy, Debug, PartialEq, Eq)]\n\
         pub enum Rpc {{\n{variants}}}\n\
         impl Rpc {{\n\
         /// Each RPC, in the order of the proto.\n\
         pub const ALL: [Rpc; {}] = [{all}];\n\
         /// What the proto says of the RPC.\n\
         pub const fn row(self) -> &'static Row {{ match self {{\n{rows}}} }}\n\
         }}\n\
         {routes}\
         macro_rules! names_over_rest {{ () => {{ {:?} }} }}\n\
         macro_rules! names_over_grpc_only {{ () => {{ {:?} }} }}\n",
        names.len(),
        over_rest.join(", "),
        over_grpc_only.join(", ")
    ))
}

/// Reads `post: "/…/{header.client_id}/…"`: the method, the template with the last names of the bound field paths as variables,
/// and these names.
fn route(method: &MethodDescriptor, rule: &DynamicMessage) -> Result<(String, String, Vec<String>), Box<dyn Error>> {
    let verb = ["get", "put", "post", "delete", "patch"].into_iter().find(|verb| rule.has_field_by_name(verb));
    let verb = verb.ok_or(format!("the HTTP rule of {} has no method", method.name()))?;
    let pattern = rule.get_field_by_name(verb).and_then(|value| value.as_str().map(str::to_owned));
    let pattern = pattern.ok_or("an HTTP rule has a pattern that is no text")?;
    let (mut template, mut fields) = (pattern.clone(), Vec::new());
    for variable in pattern.split('{').skip(1) {
        let path = variable.split('}').next().unwrap_or_default();
        let mut message = Some(method.input());
        let mut last = "";
        for name in path.split('.') {
            let field = message.as_ref().and_then(|message| message.get_field_by_name(name));
            let field = field.ok_or(format!("the route of {} binds {path}, which does not exist", method.name()))?;
            message = field.kind().as_message().cloned();
            last = name;
        }
        template = template.replace(&format!("{{{path}}}"), &format!("{{{last}}}"));
        fields.push(last.to_owned());
    }
    Ok((verb.to_uppercase(), template, fields))
}

fn capitalised(word: &str) -> String {
    let (first, rest) = word.split_at(1);
    first.to_uppercase() + rest
}

fn snake(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

//! Compiles `proto/` without a system protoc, keeps the descriptor set for reflection, and turns the `google.api.http`
//! annotation of the upload into the constants that the REST door routes by, so that the route is written down once.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use prost_reflect::{DescriptorPool, Value};

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
    fs::write(out.join("route.rs"), upload_route(&compiler.descriptor_pool())?)?;

    let mut attachments = compiler.file_descriptor_set();
    attachments.file.retain(|file| !["google.api", "google.rpc"].contains(&file.package()));
    // `Bytes` decodes a chunk as a slice of the arriving frame; `Vec<u8>` would copy it.
    tonic_prost_build::configure().bytes(".").compile_fds(attachments)?;
    Ok(())
}

/// Reads `post: "/…/{header.client_id}/…"` and writes it as a route template, whose variables are the last names of the
/// bound field paths.
fn upload_route(pool: &DescriptorPool) -> Result<String, Box<dyn Error>> {
    let service = pool.get_service_by_name(SERVICE).ok_or("the service is not in the protos")?;
    let method =
        service.methods().find(|m| m.name() == "UploadAttachment").ok_or("the service has no UploadAttachment")?;
    let extension =
        pool.get_extension_by_name("google.api.http").ok_or("google/api/annotations.proto is not imported")?;
    let options = method.options();
    let Value::Message(rule) = options.get_extension(&extension).into_owned() else {
        return Err("google.api.http is not a message".into());
    };
    let Some(Value::String(template)) = rule.get_field_by_name("post").map(|value| value.into_owned()) else {
        return Err("UploadAttachment has no `post` rule".into());
    };
    let mut bindings = Vec::new();
    for variable in template.split('{').skip(1) {
        let path = variable.split('}').next().unwrap_or_default();
        let field = path.strip_prefix("header.").ok_or("the route may bind fields of the header only")?;
        let header = pool.get_message_by_name("attachments.v2.UploadHeader").ok_or("there is no UploadHeader")?;
        header.get_field_by_name(field).ok_or_else(|| format!("the route binds {path}, which does not exist"))?;
        bindings.push(field.to_owned());
    }
    let route = template.replace("{header.", "{");
    Ok(format!(
        "/// The path template of the upload, from its `google.api.http` annotation.\n\
         pub const UPLOAD_ROUTE: &str = {route:?};\n\
         /// The fields of `UploadHeader` that the path binds, in order.\n\
         pub const UPLOAD_PATH_FIELDS: [&str; {}] = {bindings:?};\n",
        bindings.len()
    ))
}

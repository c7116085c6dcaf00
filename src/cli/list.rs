//! `attachd list`: prints the attachments of a client, page by page, so that it holds one page at a time.

use std::io::{self, IsTerminal};

use clap::{Args, ValueEnum};

use super::failure::Failure;
use super::out::{self, Reader};
use super::remote;
use super::shown::{self, Table};
use crate::pb::{Attachment, AttachmentView, ListAttachmentsRequest};

#[derive(Debug, Args)]
#[command(after_help = remote::EXIT_CODES)]
pub struct Arguments {
    /// The client that the attachments belong to
    #[arg(long, value_name = "N")]
    client: i64,
    /// Only attachments of this project
    #[arg(long, value_name = "N")]
    project: Option<i64>,
    /// Only attachments of this portfolio
    #[arg(long, value_name = "N")]
    portfolio: Option<i64>,
    /// Stop after N attachments [default: none]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// How many attachments a request asks for
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    page_size: u16,
    /// How the attachments are printed [default: table on a terminal, else json]
    #[arg(long, value_name = "FORM")]
    output: Option<Form>,
    #[command(flatten)]
    remote: remote::Arguments,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A JSON object on each line
    Json,
    /// A row of a table on each line
    Table,
}

pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let mut remote = arguments.remote.remote()?;
    let name = format!("client {}", arguments.client);
    let mut form = arguments.form();
    let mut message = arguments.first_page(form.is_none());
    let mut left = arguments.limit.unwrap_or(u64::MAX);
    let mut unreadable = 0;
    loop {
        message.page_size = i32::try_from(left).unwrap_or(i32::MAX).min(arguments.page_size.into());
        let page =
            remote.ask(&name, &message, async |mut client, request| client.list_attachments(request).await).await?;
        unreadable += i64::from(page.unreadable_count);
        left = left.saturating_sub(page.attachments.len() as u64);
        let text = form.as_mut().map_or_else(|| lines(&page.attachments), |table| table.page(&page.attachments));
        if out::print(&text)? == Reader::Gone || left == 0 || page.next_page_token.is_empty() {
            break;
        }
        message.page_token = page.next_page_token;
    }
    match unreadable {
        0 => Ok(()),
        _ => Err(Failure::running(format!(
            "{name}: attachments left out because their record is damaged: {unreadable}; the log of the server names them"
        ))),
    }
}

impl Arguments {
    /// The table, unless JSON is printed.
    fn form(&self) -> Option<Table> {
        let form = self.output.unwrap_or(if io::stdout().is_terminal() { Form::Table } else { Form::Json });
        (form == Form::Table).then(Table::default)
    }

    fn first_page(&self, full: bool) -> ListAttachmentsRequest {
        let view = if full { AttachmentView::Full } else { AttachmentView::Basic };
        ListAttachmentsRequest {
            client_id: self.client,
            project_id: self.project,
            portfolio_id: self.portfolio,
            view: view.into(),
            ..ListAttachmentsRequest::default()
        }
    }
}

/// A JSON object on each line.
fn lines(attachments: &[Attachment]) -> String {
    attachments.iter().map(|attachment| format!("{}\n", shown::as_json(attachment))).collect()
}

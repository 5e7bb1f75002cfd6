//! The calls about contacts.

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Method, StatusCode};
use send::api::contacts::{Contact, ContactImport, Erasure, Imported};
use send::api::deliveries::DeliveryEvidence;
use send::api::lists::ListPart;
use send::api::tags::{TagsChange, TagsChanged};
use shared::domain::ids::ContactId;

use crate::call::Error;
use crate::lists::{ContactQuery, ErasureQuery, PartQuery};
use crate::{Client, CsvPart};

/// The parameter by which an import leaves out contacts that are wrong.
const SKIP: [(&str, &str); 1] = [("refused", "skip")];

/// The calls about contacts. Each fails as [`Error`] says.
impl Client {
    /// Creates or changes contacts.
    pub async fn import_contacts(&self, import: &ContactImport) -> Result<Imported, Error> {
        let request = self.request(Method::PUT, &["contacts"]).json(import);
        self.call(request).await?.json()
    }

    /// Creates or changes contacts of a CSV file.
    pub async fn import_csv(&self, csv: Vec<u8>) -> Result<Imported, Error> {
        let request = self.request(Method::PUT, &["contacts"]);
        let request = request.header(CONTENT_TYPE, "text/csv").body(csv);
        self.call(request).await?.json()
    }

    /// Creates or changes the contacts that are right, and returns the faults of the others.
    pub async fn import_right_contacts(&self, import: &ContactImport) -> Result<Imported, Error> {
        let request = self.request(Method::PUT, &["contacts"]).query(&SKIP);
        self.call(request.json(import)).await?.json()
    }

    /// Creates or changes the contacts of a CSV file that are right, and returns the faults of the others.
    pub async fn import_right_csv(&self, csv: Vec<u8>) -> Result<Imported, Error> {
        let request = self.request(Method::PUT, &["contacts"]).query(&SKIP);
        let request = request.header(CONTENT_TYPE, "text/csv").body(csv);
        self.call(request).await?.json()
    }

    /// Creates or changes the contacts of a JSON body, as it is written, that are right, and returns the faults of the others.
    pub async fn import_right_json(&self, json: Vec<u8>) -> Result<Imported, Error> {
        let request = self.request(Method::PUT, &["contacts"]).query(&SKIP);
        let request = request.header(CONTENT_TYPE, "application/json").body(json);
        self.call(request).await?.json()
    }

    /// Returns a part of the contacts.
    pub async fn contacts(&self, query: &ContactQuery) -> Result<ListPart<Contact>, Error> {
        let request = self.request(Method::GET, &["contacts"]).query(query);
        self.call(request).await?.json()
    }

    /// Returns a part of the contacts as CSV, which can be imported.
    pub async fn contacts_csv(&self, query: &ContactQuery) -> Result<CsvPart, Error> {
        let request = self.request(Method::GET, &["contacts"]).query(query);
        let answer = self.call(request.header(ACCEPT, "text/csv")).await?;
        let next_cursor = answer.header("x-next-cursor").map(str::to_owned);
        let csv = answer.body;
        Ok(CsvPart { csv, next_cursor })
    }

    /// Adds and removes tags of many contacts.
    pub async fn change_tags(&self, change: &TagsChange) -> Result<TagsChanged, Error> {
        let request = self.request(Method::POST, &["contacts", "tags"]).json(change);
        self.call(request).await?.json()
    }

    /// Returns a contact as it is stored.
    pub async fn contact(&self, id: &ContactId) -> Result<Contact, Error> {
        self.call(self.request(Method::GET, &["contacts", id.as_str()]))
            .await?
            .json()
    }

    /// Deletes a contact, its opt-out included. Returns false if there was none, or a repetition found that an earlier request,
    /// whose answer was lost, had deleted it.
    pub async fn delete_contact(&self, id: &ContactId) -> Result<bool, Error> {
        match self
            .call(self.request(Method::DELETE, &["contacts", id.as_str()]))
            .await
        {
            Ok(_) => Ok(true),
            Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Erases a part of what is stored of a contact, until an answer has no cursor.
    pub async fn erase_contact(&self, id: &ContactId, query: &ErasureQuery) -> Result<Erasure, Error> {
        let request = self.request(Method::DELETE, &["contacts", id.as_str()]);
        let request = request.query(&[("erase", true)]).query(query);
        self.call(request).await?.json()
    }

    /// Returns a part of the deliveries to a contact, from the newest broadcast.
    pub async fn contact_deliveries(
        &self,
        id: &ContactId,
        query: &PartQuery,
    ) -> Result<ListPart<DeliveryEvidence>, Error> {
        let request = self.request(Method::GET, &["contacts", id.as_str(), "deliveries"]);
        self.call(request.query(query)).await?.json()
    }
}

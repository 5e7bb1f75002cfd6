//! The tables: keys, indexes and TTL attributes.

use std::collections::HashMap;

use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection,
    ProjectionType, ScalarAttributeType, TimeToLiveSpecification,
};

use super::{Error, Names};

/// Makes the three tables with their indexes and TTL attributes.
pub async fn create_tables(
    dynamodb: &aws_sdk_dynamodb::Client,
    names: &Names,
) -> Result<(), Error> {
    Table::new(&names.contacts, &[("contact_id", Key::Text)])
        .index(
            "by_page",
            &[("page_id", Key::Text), ("contact_id", Key::Text)],
        )
        .create(dynamodb)
        .await?;
    Table::new(&names.broadcasts, &[("pk", Key::Text), ("sk", Key::Text)])
        .index(
            "wake",
            &[("wake_shard", Key::Text), ("wake_at", Key::Number)],
        )
        .index(
            "page_jobs",
            &[("page_id", Key::Text), ("created_at", Key::Number)],
        )
        .index(
            "recent",
            &[("listed", Key::Text), ("created_at", Key::Number)],
        )
        .expires_by("expires_at")
        .create(dynamodb)
        .await?;
    Table::new(
        &names.deliveries,
        &[("job", Key::Text), ("contact_id", Key::Text)],
    )
    .expires_by("expires_at")
    .create(dynamodb)
    .await
}

/// The type of a key attribute.
#[derive(Debug, Clone, Copy)]
enum Key {
    Text,
    Number,
}

impl From<Key> for ScalarAttributeType {
    fn from(key: Key) -> ScalarAttributeType {
        match key {
            Key::Text => ScalarAttributeType::S,
            Key::Number => ScalarAttributeType::N,
        }
    }
}

/// A table to make. A key is a hash attribute, or a hash and a range attribute; indexes hold keys only.
struct Table<'a> {
    name: &'a str,
    key: &'a [(&'a str, Key)],
    indexes: Vec<(&'a str, &'a [(&'a str, Key)])>,
    expires_by: Option<&'a str>,
}

impl<'a> Table<'a> {
    fn new(name: &'a str, key: &'a [(&'a str, Key)]) -> Table<'a> {
        Table {
            name,
            key,
            indexes: Vec::new(),
            expires_by: None,
        }
    }

    fn index(mut self, name: &'a str, key: &'a [(&'a str, Key)]) -> Table<'a> {
        self.indexes.push((name, key));
        self
    }

    fn expires_by(mut self, attribute: &'a str) -> Table<'a> {
        self.expires_by = Some(attribute);
        self
    }

    async fn create(self, dynamodb: &aws_sdk_dynamodb::Client) -> Result<(), Error> {
        let incomplete = |source| Error::Definition {
            table: self.name.to_owned(),
            source,
        };
        let refused = |source| Error::Table {
            table: self.name.to_owned(),
            source: Box::new(source),
        };

        let attributes = self.attributes().map_err(incomplete)?;
        let indexes = self.secondary_indexes().map_err(incomplete)?;
        dynamodb
            .create_table()
            .table_name(self.name)
            .billing_mode(BillingMode::PayPerRequest)
            .set_attribute_definitions(Some(attributes))
            .set_key_schema(Some(key_schema(self.key).map_err(incomplete)?))
            .set_global_secondary_indexes(Some(indexes).filter(|indexes| !indexes.is_empty()))
            .send()
            .await
            .map_err(|error| refused(error.into()))?;

        let Some(attribute) = self.expires_by else {
            return Ok(());
        };
        let time_to_live = TimeToLiveSpecification::builder()
            .attribute_name(attribute)
            .enabled(true)
            .build()
            .map_err(incomplete)?;
        dynamodb
            .update_time_to_live()
            .table_name(self.name)
            .time_to_live_specification(time_to_live)
            .send()
            .await
            .map_err(|error| refused(error.into()))?;
        Ok(())
    }

    /// Every key attribute once, however many keys it is part of.
    fn attributes(&self) -> Result<Vec<AttributeDefinition>, BuildError> {
        let in_indexes = self.indexes.iter().flat_map(|(_, key)| key.iter());
        let types: HashMap<&str, Key> = self.key.iter().chain(in_indexes).copied().collect();
        types
            .into_iter()
            .map(|(name, key)| {
                AttributeDefinition::builder()
                    .attribute_name(name)
                    .attribute_type(key.into())
                    .build()
            })
            .collect()
    }

    fn secondary_indexes(&self) -> Result<Vec<GlobalSecondaryIndex>, BuildError> {
        let keys_only = Projection::builder()
            .projection_type(ProjectionType::KeysOnly)
            .build();
        self.indexes
            .iter()
            .map(|(name, key)| {
                GlobalSecondaryIndex::builder()
                    .index_name(*name)
                    .set_key_schema(Some(key_schema(key)?))
                    .projection(keys_only.clone())
                    .build()
            })
            .collect()
    }
}

fn key_schema(key: &[(&str, Key)]) -> Result<Vec<KeySchemaElement>, BuildError> {
    key.iter()
        .zip([KeyType::Hash, KeyType::Range])
        .map(|((name, _), key_type)| {
            KeySchemaElement::builder()
                .attribute_name(*name)
                .key_type(key_type)
                .build()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients;
    use crate::database::Database;

    #[tokio::test]
    async fn tables_have_their_keys_indexes_and_ttl() {
        let database = Database::start().unwrap();
        let dynamodb = clients::dynamodb(database.endpoint());
        let names = Names::default();

        create_tables(&dynamodb, &names).await.unwrap();

        let described = dynamodb
            .describe_table()
            .table_name(&names.broadcasts)
            .send()
            .await;
        let table = described.unwrap().table.unwrap();
        let mut indexes: Vec<_> = table
            .global_secondary_indexes()
            .iter()
            .filter_map(|index| index.index_name())
            .collect();
        indexes.sort_unstable();
        assert_eq!(indexes, ["page_jobs", "recent", "wake"]);
        let ttl = dynamodb
            .describe_time_to_live()
            .table_name(&names.deliveries)
            .send()
            .await;
        let ttl = ttl.unwrap().time_to_live_description.unwrap();
        assert_eq!(ttl.attribute_name(), Some("expires_at"));
    }
}

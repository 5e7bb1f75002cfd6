//! The tables, with their keys, indexes and TTL attributes.

use std::collections::HashMap;

use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::types::ScalarAttributeType::{self, N, S};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, CreateGlobalSecondaryIndexAction, GlobalSecondaryIndex,
    GlobalSecondaryIndexUpdate, KeySchemaElement, KeyType, Projection, ProjectionType, TimeToLiveSpecification,
};

use super::error::ResourcesError;
use super::names::Names;

/// Creates the three tables with their indexes and TTL attributes.
///
/// # Errors
///
/// Fails if DynamoDB cannot be reached or refuses a table.
pub async fn create_tables(dynamodb: &aws_sdk_dynamodb::Client, names: &Names) -> Result<(), ResourcesError> {
    for table in tables(names) {
        table.create(dynamodb).await.map_err(|source| table.error(source))?;
    }
    Ok(())
}

/// Creates the indexes that the tables of an earlier version lack. They also contain the items that were written
/// before, as far as these have the index's key attributes.
///
/// # Errors
///
/// Fails if DynamoDB cannot be reached or refuses an index.
pub async fn create_missing_indexes(dynamodb: &aws_sdk_dynamodb::Client, names: &Names) -> Result<(), ResourcesError> {
    for table in tables(names) {
        table
            .create_missing_indexes(dynamodb)
            .await
            .map_err(|source| table.error(source))?;
    }
    Ok(())
}

const OF_CONTACTS: &[Index<'_>] = &[Index {
    includes: &["tags", "opted_out", "last_interaction_at"],
    ..Index::of_keys("audience", &[("page_shard", S), ("contact_id", S)])
}];
const OF_BROADCASTS: &[Index<'_>] = &[
    Index::of_keys("wake", &[("wake_shard", S), ("wake_at", N)]),
    Index::of_keys("page_jobs", &[("page_id", S), ("created_at", N)]),
    Index::of_keys("page_sending", &[("page_id", S), ("may_send_until", N)]),
    Index::of_keys("recent", &[("listed", S), ("created_at", N)]),
];
const OF_DELIVERIES: &[Index<'_>] = &[Index::of_keys("doubt", &[("doubt_shard", S), ("look_at", N)])];

fn tables(names: &Names) -> [Table<'_>; 3] {
    [
        Table {
            name: &names.contacts,
            key: &[("contact_id", S)],
            indexes: OF_CONTACTS,
            expires_by: None,
        },
        Table {
            name: &names.broadcasts,
            key: &[("pk", S), ("sk", S)],
            indexes: OF_BROADCASTS,
            expires_by: Some("expires_at"),
        },
        Table {
            name: &names.deliveries,
            key: &[("job", S), ("contact_id", S)],
            indexes: OF_DELIVERIES,
            expires_by: Some("expires_at"),
        },
    ]
}

/// Key attributes with their types: the hash attribute, and the range attribute if there is one.
type Key<'a> = &'a [(&'a str, ScalarAttributeType)];

/// A table to create.
struct Table<'a> {
    name: &'a str,
    key: Key<'a>,
    indexes: &'a [Index<'a>],
    expires_by: Option<&'a str>,
}

/// An index of a table.
struct Index<'a> {
    name: &'a str,
    key: Key<'a>,
    /// The attributes that it contains besides keys.
    includes: &'a [&'a str],
}

impl<'a> Index<'a> {
    /// An index that contains keys only.
    const fn of_keys(name: &'a str, key: Key<'a>) -> Index<'a> {
        let includes = &[];
        Index { name, key, includes }
    }

    fn projection(&self) -> Projection {
        let projection = Projection::builder();
        if self.includes.is_empty() {
            return projection.projection_type(ProjectionType::KeysOnly).build();
        }
        let included = self.includes.iter().map(|&name| name.to_owned()).collect();
        projection
            .projection_type(ProjectionType::Include)
            .set_non_key_attributes(Some(included))
            .build()
    }
}

impl Table<'_> {
    fn error(&self, source: aws_sdk_dynamodb::Error) -> ResourcesError {
        ResourcesError::Table {
            table: self.name.to_owned(),
            source: Box::new(source),
        }
    }

    async fn create_missing_indexes(&self, dynamodb: &aws_sdk_dynamodb::Client) -> Result<(), aws_sdk_dynamodb::Error> {
        let described = dynamodb.describe_table().table_name(self.name).send().await?;
        let known = described.table.and_then(|table| table.global_secondary_indexes);
        let known: Vec<_> = known.iter().flatten().filter_map(|index| index.index_name()).collect();
        for index in self.secondary_indexes()? {
            if known.contains(&index.index_name()) {
                continue;
            }
            let create = CreateGlobalSecondaryIndexAction::builder()
                .index_name(index.index_name())
                .set_key_schema(Some(index.key_schema().to_vec()))
                .set_projection(index.projection().cloned())
                .build()?;
            dynamodb
                .update_table()
                .table_name(self.name)
                .set_attribute_definitions(Some(self.attributes()?))
                .global_secondary_index_updates(GlobalSecondaryIndexUpdate::builder().create(create).build())
                .send()
                .await?;
        }
        Ok(())
    }

    async fn create(&self, dynamodb: &aws_sdk_dynamodb::Client) -> Result<(), aws_sdk_dynamodb::Error> {
        let indexes = self.secondary_indexes()?;
        dynamodb
            .create_table()
            .table_name(self.name)
            .billing_mode(BillingMode::PayPerRequest)
            .set_attribute_definitions(Some(self.attributes()?))
            .set_key_schema(Some(key_schema(self.key)?))
            .set_global_secondary_indexes(Some(indexes).filter(|indexes| !indexes.is_empty()))
            .send()
            .await?;
        let Some(attribute) = self.expires_by else {
            return Ok(());
        };
        let time_to_live = TimeToLiveSpecification::builder()
            .attribute_name(attribute)
            .enabled(true)
            .build()?;
        dynamodb
            .update_time_to_live()
            .table_name(self.name)
            .time_to_live_specification(time_to_live)
            .send()
            .await?;
        Ok(())
    }

    /// Returns each key attribute once, even if it is part of several keys.
    fn attributes(&self) -> Result<Vec<AttributeDefinition>, BuildError> {
        let in_indexes = self.indexes.iter().flat_map(|index| index.key);
        let types: HashMap<_, _> = self.key.iter().chain(in_indexes).cloned().collect();
        types
            .into_iter()
            .map(|(name, attribute_type)| {
                AttributeDefinition::builder()
                    .attribute_name(name)
                    .attribute_type(attribute_type)
                    .build()
            })
            .collect()
    }

    fn secondary_indexes(&self) -> Result<Vec<GlobalSecondaryIndex>, BuildError> {
        self.indexes
            .iter()
            .map(|index| {
                GlobalSecondaryIndex::builder()
                    .index_name(index.name)
                    .set_key_schema(Some(key_schema(index.key)?))
                    .projection(index.projection())
                    .build()
            })
            .collect()
    }
}

fn key_schema(key: Key<'_>) -> Result<Vec<KeySchemaElement>, BuildError> {
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
    use crate::database::{Database, Reads};

    #[tokio::test]
    async fn tables_have_their_keys_indexes_and_ttl() {
        let database = Database::start(Reads::Current).unwrap();
        let dynamodb = clients::dynamodb(database.endpoint());
        let names = Names::default();

        create_tables(&dynamodb, &names).await.unwrap();

        let described = dynamodb.describe_table().table_name(&names.broadcasts).send().await;
        let table = described.unwrap().table.unwrap();
        let mut indexes: Vec<_> = table
            .global_secondary_indexes()
            .iter()
            .filter_map(|index| index.index_name())
            .collect();
        indexes.sort_unstable();
        assert_eq!(indexes, ["page_jobs", "page_sending", "recent", "wake"]);
        let ttl = dynamodb
            .describe_time_to_live()
            .table_name(&names.deliveries)
            .send()
            .await;
        let ttl = ttl.unwrap().time_to_live_description.unwrap();
        assert_eq!(ttl.attribute_name(), Some("expires_at"));
    }
}

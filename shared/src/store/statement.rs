//! Statements, each of which reads whole: the expressions, then the values that they bind.
//!
//! `#name` in an expression stands for the attribute `name`: some names are reserved words of DynamoDB.

use std::borrow::Cow;
use std::collections::HashMap;

use aws_sdk_dynamodb::operation::delete_item::builders::DeleteItemFluentBuilder;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{
    Delete as SdkDelete, Put as SdkPut, ReturnValue, ReturnValuesOnConditionCheckFailure, TransactWriteItem,
    Update as SdkUpdate,
};
use jiff::Timestamp;
use serde::Serialize;

use super::tables::{Error, Item};

/// A time as it is stored: milliseconds since the epoch.
pub(super) fn millis(time: Timestamp) -> i64 {
    time.as_millisecond()
}

/// The values of a statement. A value that cannot be written is reported when the statement is made.
#[derive(Clone, Default)]
pub(super) struct Bindings {
    values: Item,
    failure: Option<String>,
}

impl Bindings {
    /// Binds a value to a placeholder, `:name`.
    pub(super) fn bind(&mut self, placeholder: impl Into<String>, value: impl Serialize) {
        match serde_dynamo::to_attribute_value(value) {
            Ok(value) => drop(self.values.insert(placeholder.into(), value)),
            Err(error) => self.failure = Some(error.to_string()),
        }
    }

    /// The values, or `None` if there are none: DynamoDB refuses an empty map.
    pub(super) fn into_values(self, operation: &'static str) -> Result<Option<Item>, Error> {
        match self.failure {
            Some(problem) => Err(Error::unwritable(operation, problem)),
            None => Ok(Some(self.values).filter(|values| !values.is_empty())),
        }
    }
}

/// The attributes that expressions name by `#name`.
pub(super) fn names<'a>(expressions: impl IntoIterator<Item = &'a str>) -> Option<HashMap<String, String>> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let names: HashMap<_, _> = expressions
        .into_iter()
        .flat_map(|expression| expression.split('#').skip(1))
        .map(|after| after.split(|c| !is_part(c)).next().unwrap_or_default())
        .map(|name| (format!("#{name}"), name.to_owned()))
        .collect();
    Some(names).filter(|names| !names.is_empty())
}

/// An update of one item, alone or as a part of a transaction.
#[derive(Clone)]
pub(super) struct Update<'a> {
    table: &'a str,
    key: Item,
    expression: Cow<'static, str>,
    condition: Option<Cow<'static, str>>,
    names: HashMap<String, String>,
    bindings: Bindings,
    /// The number of attributes in the expression's `ADD`.
    added: usize,
    returns: ReturnValue,
}

impl<'a> Update<'a> {
    /// An update without a condition.
    pub(super) fn new(table: &'a str, key: Item, expression: impl Into<Cow<'static, str>>) -> Self {
        Self {
            table,
            key,
            expression: expression.into(),
            condition: None,
            names: HashMap::new(),
            bindings: Bindings::default(),
            added: 0,
            returns: ReturnValue::None,
        }
    }

    /// Makes the update only if the condition holds.
    pub(super) fn only_if(mut self, condition: impl Into<Cow<'static, str>>) -> Self {
        self.condition = Some(condition.into());
        self
    }

    /// Binds a value to a placeholder, `:name`.
    pub(super) fn bind(mut self, placeholder: impl Into<String>, value: impl Serialize) -> Self {
        self.bindings.bind(placeholder, value);
        self
    }

    /// Names an attribute that is known only at run time.
    pub(super) fn name(mut self, placeholder: String, attribute: &str) -> Self {
        self.names.insert(placeholder, attribute.to_owned());
        self
    }

    /// Adds to a number whose attribute is known only at run time; an absent one counts as 0. The expression has no `ADD` of
    /// its own.
    pub(super) fn add(mut self, attribute: &str, n: i64) -> Self {
        let (index, keyword) = (self.added, if self.added == 0 { " ADD" } else { "," });
        self.added += 1;
        self.expression = format!("{}{keyword} #added{index} :added{index}", self.expression).into();
        self.name(format!("#added{index}"), attribute)
            .bind(format!(":added{index}"), n)
    }

    /// Adds to several such numbers.
    pub(super) fn add_all(self, changes: &[(String, i64)]) -> Self {
        let changes = changes.iter();
        changes.fold(self, |update, (attribute, change)| update.add(attribute, *change))
    }

    /// Returns the new item. What refused the condition is returned in any case.
    pub(super) fn returning_new(mut self) -> Self {
        self.returns = ReturnValue::AllNew;
        self
    }

    /// Returns the item as it was before: an empty one if there was none.
    pub(super) fn returning_old(mut self) -> Self {
        self.returns = ReturnValue::AllOld;
        self
    }

    /// Returns the values that the written attributes had before: none if there was no item.
    pub(super) fn returning_replaced(mut self) -> Self {
        self.returns = ReturnValue::UpdatedOld;
        self
    }

    fn all_names(&self) -> Option<HashMap<String, String>> {
        let mut all = names([&*self.expression].into_iter().chain(self.condition.as_deref())).unwrap_or_default();
        if !self.names.is_empty() {
            all.retain(|placeholder, _| !self.names.contains_key(placeholder));
            all.extend(self.names.clone());
        }
        Some(all).filter(|all| !all.is_empty())
    }

    /// The request of an update by itself.
    pub(super) fn into_request(
        self,
        operation: &'static str,
        client: &aws_sdk_dynamodb::Client,
    ) -> Result<UpdateItemFluentBuilder, Error> {
        let names = self.all_names();
        Ok(client
            .update_item()
            .table_name(self.table)
            .set_key(Some(self.key))
            .update_expression(self.expression)
            .set_condition_expression(self.condition.map(Cow::into_owned))
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(self.bindings.into_values(operation)?)
            .return_values(self.returns)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld))
    }

    /// The update as a part of a transaction.
    pub(super) fn into_part(self, operation: &'static str) -> Result<TransactWriteItem, Error> {
        let names = self.all_names();
        let update = SdkUpdate::builder()
            .table_name(self.table)
            .set_key(Some(self.key))
            .update_expression(self.expression)
            .set_condition_expression(self.condition.map(Cow::into_owned))
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(self.bindings.into_values(operation)?)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let update = update.build().map_err(Error::incomplete(operation))?;
        Ok(TransactWriteItem::builder().update(update).build())
    }
}

/// A new item as a part of a transaction.
pub(super) struct Put<'a> {
    table: &'a str,
    item: Item,
    condition: Option<&'static str>,
    bindings: Bindings,
}

impl<'a> Put<'a> {
    /// A put without a condition.
    pub(super) fn new(table: &'a str, item: Item) -> Self {
        Self {
            table,
            item,
            condition: None,
            bindings: Bindings::default(),
        }
    }

    /// Writes the item only if the condition holds.
    pub(super) fn only_if(mut self, condition: &'static str) -> Self {
        self.condition = Some(condition);
        self
    }

    /// Binds a value to a placeholder, `:name`.
    pub(super) fn bind(mut self, placeholder: impl Into<String>, value: impl Serialize) -> Self {
        self.bindings.bind(placeholder, value);
        self
    }

    /// The put as a part of a transaction.
    pub(super) fn into_part(self, operation: &'static str) -> Result<TransactWriteItem, Error> {
        let put = SdkPut::builder()
            .table_name(self.table)
            .set_item(Some(self.item))
            .set_condition_expression(self.condition.map(str::to_owned))
            .set_expression_attribute_values(self.bindings.into_values(operation)?)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let put = put.build().map_err(Error::incomplete(operation))?;
        Ok(TransactWriteItem::builder().put(put).build())
    }
}

/// A delete of one item.
pub(super) struct Delete<'a> {
    table: &'a str,
    key: Item,
    condition: Option<&'static str>,
    bindings: Bindings,
}

impl<'a> Delete<'a> {
    /// A delete without a condition.
    pub(super) fn new(table: &'a str, key: Item) -> Self {
        Self {
            table,
            key,
            condition: None,
            bindings: Bindings::default(),
        }
    }

    /// Deletes the item only if the condition holds.
    pub(super) fn only_if(mut self, condition: &'static str) -> Self {
        self.condition = Some(condition);
        self
    }

    /// Binds a value to a placeholder, `:name`.
    pub(super) fn bind(mut self, placeholder: impl Into<String>, value: impl Serialize) -> Self {
        self.bindings.bind(placeholder, value);
        self
    }

    /// The delete as a part of a transaction.
    pub(super) fn into_part(self, operation: &'static str) -> Result<TransactWriteItem, Error> {
        let delete = SdkDelete::builder()
            .table_name(self.table)
            .set_key(Some(self.key))
            .set_condition_expression(self.condition.map(str::to_owned))
            .set_expression_attribute_names(names(self.condition))
            .set_expression_attribute_values(self.bindings.into_values(operation)?);
        let delete = delete.build().map_err(Error::incomplete(operation))?;
        Ok(TransactWriteItem::builder().delete(delete).build())
    }

    /// The request, which returns the deleted item.
    pub(super) fn into_request(
        self,
        operation: &'static str,
        client: &aws_sdk_dynamodb::Client,
    ) -> Result<DeleteItemFluentBuilder, Error> {
        Ok(client
            .delete_item()
            .table_name(self.table)
            .set_key(Some(self.key))
            .set_condition_expression(self.condition.map(str::to_owned))
            .set_expression_attribute_names(names(self.condition))
            .set_expression_attribute_values(self.bindings.into_values(operation)?)
            .return_values(ReturnValue::AllOld)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld))
    }
}

/// A query of a table or of an index.
#[derive(Clone)]
pub(super) struct Query<'a> {
    pub(super) table: &'a str,
    pub(super) index: Option<&'static str>,
    /// A state of a moment ago will do, at half the cost.
    pub(super) lags: bool,
    pub(super) key_condition: &'static str,
    pub(super) filter: Option<Cow<'static, str>>,
    pub(super) projection: Option<&'static str>,
    pub(super) bindings: Bindings,
    pub(super) newest_first: bool,
    pub(super) limit: Option<i32>,
    pub(super) after: Option<Item>,
}

impl<'a> Query<'a> {
    /// A strongly consistent query of a table.
    pub(super) fn table(table: &'a str, key_condition: &'static str) -> Self {
        Self {
            table,
            index: None,
            lags: false,
            key_condition,
            filter: None,
            projection: None,
            bindings: Bindings::default(),
            newest_first: false,
            limit: None,
            after: None,
        }
    }

    /// A query of an index, which lags behind its table.
    pub(super) fn index(table: &'a str, index: &'static str, key_condition: &'static str) -> Self {
        Self {
            index: Some(index),
            lags: true,
            ..Self::table(table, key_condition)
        }
    }

    /// Reads a state of a moment ago, at half the cost.
    pub(super) fn lagging(mut self) -> Self {
        self.lags = true;
        self
    }

    /// Leaves out the items that do not match.
    pub(super) fn filter(mut self, filter: impl Into<Cow<'static, str>>) -> Self {
        self.filter = Some(filter.into());
        self
    }

    /// Returns these attributes only, at the same cost.
    pub(super) fn only(mut self, projection: &'static str) -> Self {
        self.projection = Some(projection);
        self
    }

    /// Binds a value to a placeholder, `:name`.
    pub(super) fn bind(mut self, placeholder: impl Into<String>, value: impl Serialize) -> Self {
        self.bindings.bind(placeholder, value);
        self
    }

    /// Sorts in descending order.
    pub(super) fn newest_first(mut self) -> Self {
        self.newest_first = true;
        self
    }

    /// Reads at most this many items, before the filter.
    pub(super) fn limit(mut self, limit: i32) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Starts after the item with this key.
    pub(super) fn after(mut self, key: Option<Item>) -> Self {
        self.after = key;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_the_expressions() {
        let found = names(["SET #status = :status, #token=:token", "(#status IN (:a)) AND pk = :pk"]).unwrap();
        let mut found: Vec<_> = found.into_iter().collect();
        found.sort();
        let expected = [("#status", "status"), ("#token", "token")];
        assert_eq!(
            found,
            expected.map(|(name, attribute)| (name.to_owned(), attribute.to_owned()))
        );
        assert_eq!(names(["attribute_exists(pk)"]), None);
    }
}

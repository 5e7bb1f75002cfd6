//! `infra/template.yaml` as the tests read it: what it grants, and what it sets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde_yaml_ng::Value;

/// The template, read once.
pub static TEMPLATE: LazyLock<Template> = LazyLock::new(Template::read);

/// What every name in the template begins with.
const STACK: &str = "${AWS::StackName}";

pub struct Template(Value);

/// An action, and what it is for: the name of a table, with `/index/NAME` for an index of it, of a queue or of a parameter,
/// without the stack's; it may end with `*`.
pub type Grant = (String, String);

impl Template {
    fn read() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/template.yaml");
        let text = std::fs::read_to_string(path).unwrap();
        Self(serde_yaml_ng::from_str(&text).unwrap())
    }

    pub fn parameter(&self, name: &str) -> &Value {
        &self.0["Parameters"][name]
    }

    /// The properties of a resource.
    pub fn properties(&self, id: &str) -> &Value {
        let properties = &self.0["Resources"][id]["Properties"];
        assert!(properties.is_mapping(), "there is no resource {id}");
        properties
    }

    /// The resources of this type.
    pub fn of_type(&self, wanted: &str) -> Vec<&str> {
        let resources = self.0["Resources"].as_mapping().unwrap().iter();
        let wanted = resources.filter(|(_, resource)| resource["Type"] == wanted);
        wanted.map(|(id, _)| id.as_str().unwrap()).collect()
    }

    /// The functions: what they are called without the stack's name, and their resources.
    pub fn functions(&self) -> BTreeMap<String, &str> {
        let ids = self.of_type("AWS::Serverless::Function").into_iter();
        ids.map(|id| (self.name(id), id)).collect()
    }

    /// The variables that a function is given, with those that all are.
    pub fn variables(&self, function: &str) -> BTreeMap<&str, &Value> {
        let globals = &self.0["Globals"]["Function"];
        let own = self.properties(self.functions()[function]);
        let variables = [globals, own].into_iter();
        variables
            .filter_map(|properties| properties["Environment"]["Variables"].as_mapping())
            .flatten()
            .map(|(name, value)| (name.as_str().unwrap(), value))
            .collect()
    }

    /// What each function's role grants, but for what AWS itself does in its name.
    pub fn grants(&self) -> BTreeMap<String, BTreeSet<Grant>> {
        let roles = self.functions().into_iter().map(|(function, id)| {
            let (kind, role) = tagged(&self.properties(id)["Role"]);
            assert_eq!(kind, "!GetAtt");
            let role = self.properties(role.strip_suffix(".Arn").unwrap());
            assert!(
                role["ManagedPolicyArns"].is_null(),
                "{function} has managed policies"
            );
            let policies = role["Policies"].as_sequence().unwrap().iter();
            let statements = policies.flat_map(|policy| {
                let statements = policy["PolicyDocument"]["Statement"].as_sequence();
                statements.unwrap().iter().filter(|one| !is_excepted(one))
            });
            let grants = statements.flat_map(|statement| self.grants_of(statement));
            (function, grants.collect())
        });
        roles.collect()
    }

    fn grants_of(&self, statement: &Value) -> Vec<Grant> {
        assert_eq!(statement["Effect"], "Allow");
        let actions = statement["Action"].as_sequence().unwrap().iter();
        let resources = statement["Resource"].as_sequence().unwrap();
        let mut grants = Vec::new();
        for action in actions.map(|action| action.as_str().unwrap()) {
            for resource in resources {
                grants.push((action.to_owned(), self.resource(resource)));
            }
        }
        grants
    }

    /// What is granted on, as calls name it.
    fn resource(&self, resource: &Value) -> String {
        let (kind, text) = tagged(resource);
        let (id, rest) = match kind {
            "!GetAtt" => (text.strip_suffix(".Arn").unwrap(), ""),
            "!Sub" => match text
                .strip_prefix("${")
                .and_then(|text| text.split_once(".Arn}"))
            {
                Some(parts) => parts,
                None => {
                    let (_, name) = text.rsplit_once(&format!("parameter/{STACK}/")).unwrap();
                    return name.to_owned();
                }
            },
            other => panic!("{other} {text}"),
        };
        format!("{}{rest}", self.name(id))
    }

    /// What a resource is called, without the stack's name.
    fn name(&self, id: &str) -> String {
        let properties = self.properties(id);
        let names = ["TableName", "QueueName", "FunctionName"];
        let name = names.iter().map(|name| &properties[*name]);
        let (kind, name) = tagged(name.into_iter().find(|name| !name.is_null()).unwrap());
        assert_eq!(kind, "!Sub");
        name.strip_prefix(&format!("{STACK}-")).unwrap().to_owned()
    }
}

/// A short form of an intrinsic function, and its text.
pub fn tagged(value: &Value) -> (&'static str, &str) {
    let Value::Tagged(tagged) = value else {
        panic!("{value:?} is not !Ref, !Sub or !GetAtt");
    };
    let kinds = ["!Ref", "!Sub", "!GetAtt"];
    let kind = kinds.into_iter().find(|kind| tagged.tag == *kind);
    (kind.unwrap(), tagged.value.as_str().unwrap())
}

/// Logs are written and hints fetched by AWS in the function's name, and a key is used by SSM. No call of ours shows that.
fn is_excepted(statement: &Value) -> bool {
    let statement = match statement {
        Value::Tagged(condition) => &condition.value[1],
        plain => plain,
    };
    let sid = statement["Sid"].as_str().unwrap();
    ["Logs", "EventSource", "SecretsKey"]
        .iter()
        .any(|excepted| sid.starts_with(excepted))
}

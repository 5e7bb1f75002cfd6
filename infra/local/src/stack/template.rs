//! The AWS template's declarations that the local stack follows.

use serde_yaml_ng::Value;

const TEMPLATE: &str = include_str!("../../../template.yaml");

/// Returns true if the template declares that this function may be invoked in a recursive loop.
pub fn allows_recursive_loop(function: &str) -> bool {
    let template: Value = serde_yaml_ng::from_str(TEMPLATE).unwrap_or_default();
    let name = Value::from(format!("${{AWS::StackName}}-{function}"));
    let mut resources = template["Resources"].as_mapping().into_iter().flatten();
    let declared = resources.find_map(|(_, resource)| {
        let properties = &resource["Properties"];
        match &properties["FunctionName"] {
            Value::Tagged(tagged) if tagged.value == name => Some(&properties["RecursiveLoop"]),
            _ => None,
        }
    });
    declared.is_some_and(|declared| declared == "Allow")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_process_job_may_invoke_itself() {
        let allowing = ["send", "process-job", "scheduled", "other"].map(allows_recursive_loop);
        assert_eq!(allowing, [false, true, false, false]);
    }
}

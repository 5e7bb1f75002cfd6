"""Asserts properties of the template, as SAM translates it, that no linter knows. Prints one line for each fault."""

import json
import re
import sys
from pathlib import Path

from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

# Resources that cannot be known at deployment; all other statements name their resources in full.
WILDCARDS = {"PageTokens": "/page-tokens/*"}
# Messenger can neither sign with IAM nor present a JWT.
PUBLIC = {"GET /v1/webhooks/messenger", "POST /v1/webhooks/messenger"}
SCOPES = {
    "GET /v1/health": None,
    "PUT /v1/contacts": "contacts:write",
    "GET /v1/contacts/{contact_id}": "contacts:write",
    "DELETE /v1/contacts/{contact_id}": "contacts:write",
}
EXPIRING = {"BroadcastsTable", "DeliveriesTable"}
# Seconds from process-job's time-out until a wake-up comes back: the function may need a moment to be stopped.
VISIBILITY_MARGIN = 30
# Seconds that API Gateway waits at most for the integration of an HTTP API.
API_LIMIT = 30

faults = []


def expect(condition, fault):
    if not condition:
        faults.append(fault)


class NoManagedPolicies:
    def load(self):
        return {}


def translated(template):
    """Returns the template as CloudFormation gets it, with placeholders for the code."""
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            name = Path(resource["Properties"]["CodeUri"]).parent.name
            resource["Properties"]["CodeUri"] = f"s3://bucket/{name}"
    return transform(template, {}, NoManagedPolicies())


def text(value):
    return json.dumps(value)


def strings(value):
    """Yields every string in a value, except the names of intrinsic functions."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)


def listed(value):
    return value if isinstance(value, list) else [value]


class Template:
    def __init__(self, body):
        self.body = body
        self.resources = body["Resources"]

    def of(self, kind):
        return {
            name: resource
            for name, resource in self.resources.items()
            if resource["Type"] == kind
        }

    def properties(self, name):
        return self.resources[name]["Properties"]

    def parameters_in(self, value):
        """Returns the names of the parameters that a value depends on, directly or through conditions."""
        names = set()
        if isinstance(value, dict):
            for function, argument in value.items():
                if function == "Ref":
                    names.add(argument)
                elif function == "Condition":
                    names |= self.parameters_in(self.body["Conditions"][argument])
                elif function == "Fn::If":
                    names |= self.parameters_in(self.body["Conditions"][argument[0]])
                    names |= self.parameters_in(argument[1:])
                elif function == "Fn::Sub":
                    names |= set(re.findall(r"\$\{([A-Za-z0-9]+)\}", text(argument)))
                else:
                    names |= self.parameters_in(argument)
        elif isinstance(value, list):
            for inner in value:
                names |= self.parameters_in(inner)
        return names & set(self.body["Parameters"])


def statements(role):
    """Yields the statements of a role, including those under a condition."""
    for policy in role["Properties"].get("Policies", []):
        for statement in policy["PolicyDocument"]["Statement"]:
            yield statement["Fn::If"][1] if "Fn::If" in statement else statement


def check_roles(template):
    roles = template.of("AWS::IAM::Role")
    for name, role in roles.items():
        properties = role["Properties"]
        expect("ManagedPolicyArns" not in properties, f"{name}: managed policies")
        expect("RoleName" not in properties, f"{name}: a named role needs CAPABILITY_NAMED_IAM")
        for statement in statements(role):
            where = f"{name}/{statement.get('Sid')}"
            expect(statement.get("Sid"), f"{where}: no Sid")
            expect(statement["Effect"] == "Allow", f"{where}: not an Allow")
            expect(
                "NotAction" not in statement and "NotResource" not in statement,
                f"{where}: grants by exclusion",
            )
            for action in listed(statement.get("Action", "*")):
                expect("*" not in action, f"{where}: action {action}")
            allowed = WILDCARDS.get(statement.get("Sid"))
            for resource in listed(statement.get("Resource", "*")):
                for part in strings(resource):
                    bare = part.removesuffix(allowed) if allowed else part
                    expect("*" not in bare, f"{where}: resource {part}")
    for name, function in template.of("AWS::Lambda::Function").items():
        role = function["Properties"]["Role"]
        own = f"{name.removesuffix('Function')}Role"
        expect(role == {"Fn::GetAtt": [own, "Arn"]}, f"{name}: does not have the role {own}")
    for kind in ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"):
        expect(not template.of(kind), f"{kind}: permissions belong in the roles")


def check_routes(template):
    for name, route in template.of("AWS::ApiGatewayV2::Route").items():
        properties = route["Properties"]
        key = properties["RouteKey"]
        kind = properties.get("AuthorizationType", "NONE")
        expect(key != "$default", f"{name}: a $default route lets every path through")
        if key in PUBLIC:
            expect(kind == "NONE", f"{name}: Messenger must reach {key}")
            continue
        expect(
            kind == {"Fn::If": ["HasJwt", "JWT", "AWS_IAM"]},
            f"{name}: {key} is open, or has another authorizer",
        )
        expect(
            properties.get("AuthorizerId")
            == {"Fn::If": ["HasJwt", {"Ref": "JwtAuthorizer"}, {"Ref": "AWS::NoValue"}]},
            f"{name}: {key} has no JWT authorizer",
        )
        default = "broadcasts:read" if key.startswith("GET ") else "broadcasts:write"
        scope = SCOPES.get(key, default)
        scopes = properties.get("AuthorizationScopes")
        wanted = scope and {"Fn::If": ["HasJwt", [scope], {"Ref": "AWS::NoValue"}]}
        expect(scopes == wanted, f"{name}: {key} must ask for the scope {scope}")
    logged = template.properties("ApiStage")["AccessLogSettings"]["Format"]
    variables = set(re.findall(r"\$context\.([A-Za-z.]+)", logged))
    expect(
        not variables & {"path", "domainName", "protocol"},
        "ApiStage: a path in the access log names contacts",
    )
    try:
        json.loads(re.sub(r"\s*\n\s*", "", logged))
    except ValueError as error:
        expect(False, f"ApiStage: the access log is no JSON: {error}")


def check_time_outs(template):
    timeout = lambda function: template.properties(function)["Timeout"]
    jobs = template.properties("JobsQueue")
    expect(
        jobs["VisibilityTimeout"] == timeout("ProcessJobFunction") + VISIBILITY_MARGIN,
        f"JobsQueue: its visibility time-out must be process-job's time-out and {VISIBILITY_MARGIN} s",
    )
    integration = template.properties("SendIntegration")["TimeoutInMillis"] / 1000
    expect(
        timeout("SendFunction") < integration <= API_LIMIT,
        "SendFunction: API Gateway would time out first",
    )
    retry = template.properties("EveryMinute")["Target"].get("RetryPolicy", {})
    expect(retry.get("MaximumRetryAttempts") == 0, "EveryMinute: retries accumulate")
    expect(timeout("ScheduledFunction") <= 60, "ScheduledFunction: invocations overlap")


def check_queues(template):
    jobs = template.properties("JobsQueue")
    redrive = jobs.get("RedrivePolicy", {})
    expect(
        redrive.get("deadLetterTargetArn") == {"Fn::GetAtt": ["DeadLettersQueue", "Arn"]}
        and redrive.get("maxReceiveCount") == 5,
        "JobsQueue: no dead-letter queue after 5 receives",
    )
    for name, queue in template.of("AWS::SQS::Queue").items():
        properties = queue["Properties"]
        expect(properties.get("FifoQueue") is True, f"{name}: not FIFO")
        expect(not properties.get("ContentBasedDeduplication"), f"{name}: deduplicates by content")
        expect(properties.get("SqsManagedSseEnabled") is True, f"{name}: not encrypted")
    denied = text(template.properties("QueuesPolicy"))
    for queue in template.of("AWS::SQS::Queue"):
        expect(f'["{queue}", "Arn"]' in denied, f"{queue}: not restricted to TLS")
    mapping = template.properties("ProcessJobFunctionHints")
    expect(mapping["BatchSize"] == 1, "Hints: an invocation must be one run of one job")
    expect(
        mapping.get("FunctionResponseTypes") == ["ReportBatchItemFailures"],
        "Hints: a failed wake-up would count as done",
    )
    expect("MaximumConcurrency" in mapping.get("ScalingConfig", {}), "Hints: no maximum concurrency")


def check_tables(template):
    for name, table in template.of("AWS::DynamoDB::Table").items():
        properties = table["Properties"]
        for policy in ("DeletionPolicy", "UpdateReplacePolicy"):
            expect(table.get(policy) == "Retain", f"{name}: {policy} is not Retain")
        expect("TableName" in properties, f"{name}: without a name it can be replaced by an empty one")
        expect(properties.get("BillingMode") == "PAY_PER_REQUEST", f"{name}: not on demand")
        expect(properties.get("DeletionProtectionEnabled") is True, f"{name}: can be deleted")
        expect(
            properties.get("PointInTimeRecoverySpecification", {}).get("PointInTimeRecoveryEnabled")
            is True,
            f"{name}: no point-in-time recovery",
        )
        expect(properties.get("SSESpecification", {}).get("SSEEnabled") is True, f"{name}: no encryption")
        expires = properties.get("TimeToLiveSpecification")
        wanted = {"AttributeName": "expires_at", "Enabled": True} if name in EXPIRING else None
        expect(expires == wanted, f"{name}: its time to live must be {wanted}")


def check_functions(template):
    for name, function in template.of("AWS::Lambda::Function").items():
        properties = function["Properties"]
        expect(properties["Runtime"] == "provided.al2023", f"{name}: another runtime")
        expect(properties["Handler"] == "bootstrap", f"{name}: another handler")
        base = name.removesuffix("Function")
        expect(
            properties.get("LoggingConfig", {}).get("LogGroup") == {"Ref": f"{base}Log"},
            f"{name}: does not write to {base}Log",
        )
        versions = [
            (version, resource)
            for version, resource in template.of("AWS::Lambda::Version").items()
            if resource["Properties"]["FunctionName"] == {"Ref": name}
        ]
        expect(len(versions) == 1 and f"{name}Aliaslive" in template.resources, f"{name}: no alias `live`")
        for version, resource in versions:
            for policy in ("DeletionPolicy", "UpdateReplacePolicy"):
                expect(resource.get(policy) == "Retain", f"{name}: old versions are not kept ({policy})")
            description = template.parameters_in(resource["Properties"].get("Description"))
            depends = template.parameters_in(properties)
            expect(
                depends <= description,
                f"{name}: no version is published for new values of {sorted(depends - description)}",
            )
            expect(
                description <= template.parameters_in(properties["Description"]),
                f"{name}: Lambda would refuse to publish, since the function does not change with these values",
            )
        for variable, value in properties["Environment"]["Variables"].items():
            if variable in ("PAGE_TOKENS", "APP_SECRET", "WEBHOOK_VERIFY_TOKEN"):
                given = [one for one in strings(value) if one.startswith(("ssm:", "file:"))]
                expect(
                    given and all(one.startswith("ssm:/${AWS::StackName}/") for one in given),
                    f"{name}: {variable} does not name SecureStrings of this stack",
                )
    for name, group in template.of("AWS::Logs::LogGroup").items():
        expect("RetentionInDays" in group["Properties"], f"{name}: no retention")
    # Callers of $LATEST would not be rolled back with the alias.
    alias = lambda name: {"Ref": f"{name}Aliaslive"}
    callers = {
        "SendIntegration": ("IntegrationUri", alias("SendFunction")),
        "SendPermission": ("FunctionName", alias("SendFunction")),
        "ProcessJobFunctionHints": ("FunctionName", alias("ProcessJobFunction")),
    }
    for name, (property_name, wanted) in callers.items():
        expect(template.properties(name)[property_name] == wanted, f"{name}: does not call the alias")
    target = template.properties("EveryMinute")["Target"]
    expect(target["Arn"] == alias("ScheduledFunction"), "EveryMinute: does not call the alias")


def check_schedule(template):
    schedule = template.properties("EveryMinute")
    # A rate of one takes the singular, and rates in seconds do not exist; linters accept `rate(60 seconds)` all the same.
    expect(
        schedule["ScheduleExpression"] == "rate(1 minute)",
        f"EveryMinute: {schedule['ScheduleExpression']!r} is not rate(1 minute)",
    )
    expect(schedule["FlexibleTimeWindow"] == {"Mode": "OFF"}, "EveryMinute: may be invoked late")


def check_alarms(template):
    alarms = template.of("AWS::CloudWatch::Alarm")
    dashboard = template.properties("Dashboard")["DashboardBody"]["Fn::Sub"]
    try:
        json.loads(dashboard)
    except ValueError as error:
        expect(False, f"Dashboard: no JSON: {error}")
    runbook = Path(__file__).with_name("README.md")
    runbook = runbook.read_text() if runbook.exists() else ""
    for name, alarm in alarms.items():
        properties = alarm["Properties"]
        expect("TreatMissingData" in properties, f"{name}: missing data is not considered")
        expect(properties.get("AlarmActions") == [{"Ref": "AlarmsTopic"}], f"{name}: does not publish to AlarmsTopic")
        expect(f"${{{name}.Arn}}" in dashboard, f"{name}: not on the dashboard")
        called = properties["AlarmName"]["Fn::Sub"].removeprefix("${AWS::StackName}-")
        expect(f"`{called}`" in runbook, f"{name}: infra/README.md does not describe `{called}`")


def check_names(template):
    """Asserts that every name begins with the stack's, so that two stacks fit in one account and Region."""
    named = {
        "AWS::DynamoDB::Table": "TableName",
        "AWS::SQS::Queue": "QueueName",
        "AWS::Lambda::Function": "FunctionName",
        "AWS::Logs::LogGroup": "LogGroupName",
        "AWS::Scheduler::Schedule": "Name",
        "AWS::ApiGatewayV2::Api": "Name",
        "AWS::SNS::Topic": "TopicName",
        "AWS::CloudWatch::Alarm": "AlarmName",
        "AWS::CloudWatch::Dashboard": "DashboardName",
    }
    for kind, property_name in named.items():
        for name, resource in template.of(kind).items():
            called = text(resource["Properties"].get(property_name, "AWS::StackName"))
            expect("AWS::StackName" in called, f"{name}: its name is the same in every stack")


def check_skips(source, report):
    """Asserts that each of checkov's skips has a reason and is needed."""
    used = {
        (check["resource"].rpartition(".")[2], check["check_id"])
        for check in report["results"]["skipped_checks"]
    }
    for name, resource in source["Resources"].items():
        for skip in resource.get("Metadata", {}).get("checkov", {}).get("skip", []):
            expect(skip.get("comment"), f"{name}: {skip['id']} is skipped without a reason")
            expect((name, skip["id"]) in used, f"{name}: {skip['id']} is skipped and does not occur")
    for check in report["results"]["failed_checks"]:
        expect(False, f"checkov {check['check_id']}: {check['check_name']}: {check['resource']}")
    expect(report["summary"]["passed"] > 0, "checkov checked nothing")


CHECKS = [
    check_roles,
    check_routes,
    check_time_outs,
    check_queues,
    check_tables,
    check_functions,
    check_schedule,
    check_alarms,
    check_names,
]


def main(arguments):
    path = Path(arguments[1])
    source = yaml_parse(path.read_text())
    if arguments[0] == "translate":
        json.dump(translated(source), sys.stdout, indent=1)
        return 0
    if arguments[0] == "skips":
        # checkov reports one framework as an object.
        check_skips(source, json.loads(Path(arguments[2]).read_text()))
        what = "checkov: no failure, and every skip has its reason"
    else:
        template = Template(json.loads(Path(arguments[2]).read_text()))
        for check in CHECKS:
            # A missing property is reported as a fault, and does not hide the faults of other checks.
            try:
                check(template)
            except (KeyError, AttributeError, TypeError) as error:
                expect(False, f"{check.__name__}: missing or not as expected: {error!r}")
        what = f"{len(CHECKS)} groups of assertions hold"
    for fault in faults:
        print(fault, file=sys.stderr)
    if not faults:
        print(what)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

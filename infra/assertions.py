"""Asserts properties of the template, as SAM translates it, that no linter knows. Prints one line for each fault."""

import json
import logging
import re
import sys
from pathlib import Path

from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

# Resources that cannot be known at deployment, or not be named; all other statements name their resources in full.
WILDCARDS = {"PageTokens": "/page-tokens/*", "Alarms": "*", "Traces": "*"}
# Parameters under which CodeDeploy shifts callers to a new version.
GRADUAL = {"GradualRollout": "Canary10Percent5Minutes"}
# Messenger can neither sign with IAM nor present a JWT.
PUBLIC = {"GET /v1/webhooks/messenger", "POST /v1/webhooks/messenger"}
SCOPES = {
    "GET /v1/health": None,
    "GET /v1/openapi.json": None,
    "GET /v1/problems/{name}": None,
    "PUT /v1/contacts": "contacts:write",
    "GET /v1/contacts": "contacts:write",
    "POST /v1/contacts/tags": "contacts:write",
    "GET /v1/contacts/{contact_id}": "contacts:write",
    "DELETE /v1/contacts/{contact_id}": "contacts:write",
    "POST /v1/pages/{page_id}/import": "contacts:write",
    "GET /v1/pages/{page_id}/import": "contacts:write",
    "POST /v1/pages/{page_id}/import/cancel": "contacts:write",
    "POST /v1/audiences/count": "broadcasts:read",
}
EXPIRING = {"BroadcastsTable", "DeliveriesTable"}
# Seconds from process-job's time-out until a wake-up comes back: the function may need a moment to be stopped.
VISIBILITY_MARGIN = 30
# Seconds that scheduled keeps after its last lookup. It begins lookups in at least half of its time.
LOOKUP_WIND_UP = 5
# Characters that Lambda takes as the description of a function or version.
DESCRIPTION_LIMIT = 256
# Bytes that the names and values of a function's variables may have together, and the greatest lengths of values that are
# not in the template. A queue's name has at most 80 characters.
ENVIRONMENT_LIMIT = 4096
LENGTHS = {"AWS::NoValue": 0, "AWS::StackName": 128}
QUEUE_URL_LENGTH = len("https://sqs.ap-southeast-1.amazonaws.com.cn/000000000000/") + 80
# Seconds that API Gateway waits at most for the integration of an HTTP API.
API_LIMIT = 30

# Alarms about a state that lasts, whose end is worth a message. The others are about events.
STATES = {"DeadLettersAlarm", "EventsDeadLettersAlarm", "HintAgeAlarm", "OldestDoubtAlarm", "SendingOffAlarm", "ScheduleSilentAlarm"}

# Prefixes of actions, where they are not the service's name in a resource type; and the length of a managed policy.
SERVICES = {"apigatewayv2": "apigateway"}
POLICY_LIMIT = 6144

faults = []


def expect(condition, fault):
    if not condition:
        faults.append(fault)


# SAM warns of metrics and features of its own.
logging.disable(logging.WARNING)


class NoManagedPolicies:
    def load(self):
        return {}


def translated(template, parameters=None):
    """Returns the template as CloudFormation gets it, with placeholders for the code."""
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            name = Path(resource["Properties"]["CodeUri"]).parent.name
            resource["Properties"]["CodeUri"] = f"s3://bucket/{name}"
    return transform(template, dict(parameters or {}), NoManagedPolicies())


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
    def __init__(self, body, path=None):
        self.body = body
        self.path = path
        self.resources = body["Resources"]

    def source(self):
        """Returns the template as it is written, for another translation."""
        return yaml_parse(self.path.read_text())

    def of(self, kind):
        return {
            name: resource
            for name, resource in self.resources.items()
            if resource["Type"] == kind
        }

    def properties(self, name):
        return self.resources[name]["Properties"]

    def longest(self, value):
        """Returns the greatest length that a text can have, whatever the parameters and the stack's name are."""
        if isinstance(value, str):
            return len(value)
        [(function, argument)] = value.items()
        if function == "Fn::If":
            return max(self.longest(inner) for inner in argument[1:])
        if function == "Fn::Sub":
            return len(re.sub(r"\$\{([A-Za-z0-9:]+)\}", lambda match: "." * self.longest({"Ref": match[1]}), argument))
        if argument in LENGTHS:
            return LENGTHS[argument]
        if argument in self.resources:
            resource = self.resources[argument]
            if resource["Type"] == "AWS::SQS::Queue":
                return QUEUE_URL_LENGTH
            return self.longest(resource["Properties"]["TableName"])
        parameter = self.body["Parameters"][argument]
        if parameter["Type"] == "Number":
            return len(str(parameter["MaxValue"]))
        values = parameter.get("AllowedValues")
        return max(len(str(value)) for value in values) if values else parameter["MaxLength"]

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
        boundary = {"Fn::If": ["HasBoundary", {"Ref": "PermissionsBoundary"}, {"Ref": "AWS::NoValue"}]}
        expect(properties.get("PermissionsBoundary") == boundary, f"{name}: not bounded by PermissionsBoundary")
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
            if "dynamodb:DeleteItem" in listed(statement["Action"]) and "BroadcastsTable" in str(statement["Resource"]):
                only = {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["audiences", "mid#*"]}}
                expect(statement.get("Condition") == only, f"{where}: may delete a broadcast, a job or a request key")
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
        named = {"Fn::Sub": f"${{ScopePrefix}}{scope}"}
        wanted = scope and {"Fn::If": ["HasScopes", [named], {"Ref": "AWS::NoValue"}]}
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
    lookup = 2 * template.body["Parameters"]["MessengerTimeoutSeconds"]["MaxValue"] + LOOKUP_WIND_UP
    expect(lookup <= timeout("ScheduledFunction") / 2, "MessengerTimeoutSeconds: a lookup may outlive scheduled")


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
        # Only a standard queue may have a stream's dead letters.
        expect(properties.get("FifoQueue", False) is (name != "EventsDeadLettersQueue"), f"{name}: not FIFO, or must not be")
        expect(not properties.get("ContentBasedDeduplication"), f"{name}: deduplicates by content")
        expect(properties.get("SqsManagedSseEnabled") is True, f"{name}: not encrypted")
    expect(
        jobs.get("DeduplicationScope") == "messageGroup" and jobs.get("FifoThroughputLimit") == "perMessageGroupId",
        "JobsQueue: all Pages share 300 calls a second",
    )
    allowed = template.properties("DeadLettersQueue").get("RedriveAllowPolicy", {})
    source = text(allowed.get("sourceQueueArns")).replace(jobs["QueueName"]["Fn::Sub"], "JOBS")
    expect(
        allowed.get("redrivePermission") == "byQueue" and source.endswith(':JOBS"}]'),
        "DeadLettersQueue: another queue may use it",
    )
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
    # A run wakes the next through the queue that invoked it, which Lambda would stop after about 16 runs.
    for name, function in template.of("AWS::Lambda::Function").items():
        wanted = "Allow" if mapping["FunctionName"] == {"Ref": f"{name}Aliaslive"} else None
        loop = function["Properties"].get("RecursiveLoop")
        expect(loop == wanted, f"{name}: RecursiveLoop must be {wanted}")


def check_tables(template):
    expect(template.body["Parameters"]["ProtectTables"]["Default"] == "true", "ProtectTables: not the default")
    for name, table in template.of("AWS::DynamoDB::Table").items():
        properties = table["Properties"]
        # With Retain, the tables of a stack that could not be created would be in the way of the next attempt.
        expect(table.get("DeletionPolicy") == "RetainExceptOnCreate", f"{name}: its DeletionPolicy is not RetainExceptOnCreate")
        expect(table.get("UpdateReplacePolicy") == "Retain", f"{name}: its UpdateReplacePolicy is not Retain")
        expect("TableName" in properties, f"{name}: without a name it can be replaced by an empty one")
        expect(properties.get("BillingMode") == "PAY_PER_REQUEST", f"{name}: not on demand")
        expect(
            properties.get("DeletionProtectionEnabled") == {"Fn::If": ["Protects", True, False]},
            f"{name}: is not protected against deletion by ProtectTables",
        )
        expect(
            properties.get("PointInTimeRecoverySpecification", {}).get("PointInTimeRecoveryEnabled")
            is True,
            f"{name}: no point-in-time recovery",
        )
        expect(properties.get("SSESpecification", {}).get("SSEEnabled") is True, f"{name}: no encryption")
        expires = properties.get("TimeToLiveSpecification")
        wanted = {"AttributeName": "expires_at", "Enabled": True} if name in EXPIRING else None
        expect(expires == wanted, f"{name}: its time to live must be {wanted}")


def check_events(template):
    """Asserts that each event of a broadcast reaches the bus: the Pipe reads the stream from its beginning, nothing but new events,
    and what the bus does not take has a dead letter."""
    stream = template.properties("BroadcastsTable").get("StreamSpecification")
    expect(stream == {"StreamViewType": "NEW_IMAGE"}, "BroadcastsTable: its stream does not have new items")
    pipe = template.properties("EventsPipe")
    expect(pipe["Source"] == {"Fn::GetAtt": ["BroadcastsTable", "StreamArn"]}, "EventsPipe: another source")
    expect(pipe.get("DesiredState", "RUNNING") == "RUNNING", "EventsPipe: may be stopped by a deployment")
    expect("Enrichment" not in pipe, "EventsPipe: has code on the way")
    source = pipe["SourceParameters"]["DynamoDBStreamParameters"]
    expect(source["StartingPosition"] == "TRIM_HORIZON", "EventsPipe: leaves out what is written while it is created")
    for limit in ("MaximumRecordAgeInSeconds", "MaximumRetryAttempts"):
        expect(source.get(limit, -1) == -1, f"EventsPipe: gives up early ({limit})")
    dead_letters = {"Arn": {"Fn::GetAtt": ["EventsDeadLettersQueue", "Arn"]}}
    expect(source.get("DeadLetterConfig") == dead_letters, "EventsPipe: an event that is given up leaves no trace")
    filters = [json.loads(one["Pattern"]) for one in pipe["SourceParameters"]["FilterCriteria"]["Filters"]]
    new_event = {"eventName": ["INSERT"], "dynamodb": {"Keys": {"pk": {"S": [{"prefix": "event#"}]}}}}
    expect(filters == [new_event], "EventsPipe: tells of something else than new events")
    target = pipe["TargetParameters"]
    kind = target["EventBridgeEventBusParameters"]["DetailType"]
    expect(kind == "$.dynamodb.NewImage.type.S", "EventsPipe: rules cannot choose by detail-type")
    json.loads(target["InputTemplate"])
    bus = {one["Sid"]: one["Resource"] for one in statements(template.resources["EventsPipeRole"])}["Bus"]
    expect(bus == [pipe["Target"]], "EventsPipeRole: may not put events on the Pipe's bus, or on another one")


def check_imported_tables(template, imported):
    """Asserts that the template for importing tables declares them as the stack does: protected, and nothing else."""
    tables = template.of("AWS::DynamoDB::Table")
    protected = text(tables).replace(text({"Fn::If": ["Protects", True, False]}), "true")
    expect(imported.resources == json.loads(protected), "infra/tables: prints other tables than the template's")


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
            for described in (resource["Properties"], properties):
                length = template.longest(described["Description"])
                expect(length <= DESCRIPTION_LIMIT, f"{name}: a description may have {length} characters")
            # A version does not contain these.
            of_function = ("ReservedConcurrentExecutions",)
            depends = template.parameters_in({key: properties[key] for key in properties if key not in of_function})
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


def check_environment(template):
    """Asserts that Lambda takes the variables, whatever the parameters are."""
    for name, function in template.of("AWS::Lambda::Function").items():
        variables = function["Properties"]["Environment"]["Variables"]
        total = sum(len(variable) + template.longest(value) for variable, value in variables.items())
        expect(total <= ENVIRONMENT_LIMIT, f"{name}: its variables may have {total} bytes")


def check_tracing(template):
    """Each function is traced by the parameter, and its role may write traces only then."""
    traces = {
        "Sid": "Traces",
        "Effect": "Allow",
        "Action": ["xray:PutTelemetryRecords", "xray:PutTraceSegments"],
        "Resource": ["*"],
    }
    for name in template.of("AWS::Lambda::Function"):
        mode = template.properties(name).get("TracingConfig")
        expect(mode == {"Mode": {"Ref": "Tracing"}}, f"{name}: not traced as Tracing says")
        role = template.properties(f"{name.removesuffix('Function')}Role")
        found = [one for policy in role["Policies"] for one in policy["PolicyDocument"]["Statement"] if "Traces" in str(one)]
        wanted = [{"Fn::If": ["IsTraced", traces, {"Ref": "AWS::NoValue"}]}]
        expect(found == wanted, f"{name}: its role may write traces otherwise than under IsTraced")
    expect(
        template.body["Conditions"]["IsTraced"] == {"Fn::Equals": [{"Ref": "Tracing"}, "Active"]},
        "IsTraced: not that Tracing is Active",
    )
    expect(template.body["Parameters"]["Tracing"]["Default"] == "PassThrough", "Tracing: on by default")


def check_concurrency(template):
    mapping = template.properties("ProcessJobFunctionHints")
    at_once = mapping["ScalingConfig"]["MaximumConcurrency"]
    # With fewer reserved, Lambda would throttle wake-ups, and each throttling uses up a receive.
    wanted = {"SendFunction": {"Ref": "SendReserved"}, "ProcessJobFunction": at_once, "ScheduledFunction": 2}
    for name, count in wanted.items():
        reserved = template.properties(name).get("ReservedConcurrentExecutions")
        expect(
            reserved == {"Fn::If": ["Reserves", count, {"Ref": "AWS::NoValue"}]},
            f"{name}: cannot have concurrency reserved, or not {count}",
        )


def check_schedule(template):
    schedule = template.properties("EveryMinute")
    # A rate of one takes the singular, and rates in seconds do not exist; linters accept `rate(60 seconds)` all the same.
    expect(
        schedule["ScheduleExpression"] == "rate(1 minute)",
        f"EveryMinute: {schedule['ScheduleExpression']!r} is not rate(1 minute)",
    )
    expect(schedule["FlexibleTimeWindow"] == {"Mode": "OFF"}, "EveryMinute: may be invoked late")


def check_switch(template):
    """Asserts that nothing which a deployment changes can end a drain: sending is switched by an item of the tables alone."""
    expect(template.properties("ProcessJobFunctionHints").get("Enabled", True) is True, "Hints: may be disabled by a deployment")
    expect(template.properties("EveryMinute").get("State", "ENABLED") == "ENABLED", "EveryMinute: may be disabled by a deployment")
    for role in ("SendRole", "ProcessJobRole", "ScheduledRole"):
        described = {
            part
            for statement in statements(template.resources[role])
            if "dynamodb:DescribeTable" in listed(statement["Action"])
            for part in strings(statement["Resource"])
        }
        tables = set(template.of("AWS::DynamoDB::Table"))
        expect(tables <= described, f"{role}: cannot tell a restored table from the one that sending was switched on for")


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
        expect("ActionsEnabled" not in properties, f"{name}: after a change while it may not act it would stay mute")
        recovery = [{"Ref": "AlarmsTopic"}] if name in STATES else None
        expect(properties.get("OKActions") == recovery, f"{name}: its OKActions must be {recovery}")
        expect(f"${{{name}.Arn}}" in dashboard, f"{name}: not on the dashboard")
        called = properties["AlarmName"]["Fn::Sub"].removeprefix("${AWS::StackName}-")
        expect(f"`{called}`" in runbook, f"{name}: infra/README.md does not describe `{called}`")


def check_throttle_alarms(template):
    """Asserts that throttles of each table and of each of its indexes raise an alarm: DynamoDB counts them separately."""
    watched = set()
    for name, alarm in template.of("AWS::CloudWatch::Alarm").items():
        for metric in alarm["Properties"].get("Metrics", []):
            if "MetricStat" not in metric:
                summed = metric.get("Expression") == "SUM(METRICS())" and metric.get("ReturnData", True)
                expect(summed, f"{name}: is not about the sum of its metrics")
                continue
            expect(metric.get("ReturnData") is False, f"{name}: {metric['Id']} is compared by itself")
            metric = metric["MetricStat"]["Metric"]
            dimensions = {one["Name"]: text(one["Value"]) for one in metric["Dimensions"]}
            index = dimensions.get("GlobalSecondaryIndexName")
            watched.add((metric["MetricName"], dimensions["TableName"], index))
    for name, table in template.of("AWS::DynamoDB::Table").items():
        indexes = [text(index["IndexName"]) for index in table["Properties"]["GlobalSecondaryIndexes"]]
        for metric in ("ReadThrottleEvents", "WriteThrottleEvents"):
            for index in [None, *indexes]:
                seen = (metric, text({"Ref": name}), index) in watched
                expect(seen, f"{name}: no alarm sees {metric} of {index or 'the table'}")


def check_rollout(template):
    """Asserts that CodeDeploy shifts callers only if asked to, with a role of ours, and goes back if an alarm fires."""
    gradual = Template(translated(template.source(), GRADUAL))
    groups = "AWS::CodeDeploy::DeploymentGroup"
    expect(not template.of(groups), "GradualRollout: CodeDeploy is not asked for by default")
    expect(len(gradual.of(groups)) == len(gradual.of("AWS::Lambda::Function")), f"GradualRollout: not one {groups} a function")
    for name, group in gradual.of(groups).items():
        properties = group["Properties"]
        expect(properties["ServiceRoleArn"] == {"Fn::GetAtt": ["RolloutRole", "Arn"]}, f"{name}: another role")
        alarms = properties["AlarmConfiguration"]
        names = {alarm["Name"]["Ref"] for alarm in alarms["Alarms"]}
        expect(alarms["Enabled"] and names and names <= set(template.of("AWS::CloudWatch::Alarm")), f"{name}: no alarms")
        events = properties["AutoRollbackConfiguration"]["Events"]
        expect("DEPLOYMENT_STOP_ON_ALARM" in events, f"{name}: is not rolled back by an alarm")
    for name, alias in gradual.of("AWS::Lambda::Alias").items():
        expect("CodeDeployLambdaAliasUpdate" in alias.get("UpdatePolicy", {}), f"{name}: moved at once")
    check_roles(gradual)


def check_budget(template):
    budget = template.resources["Budget"]
    expect(budget.get("Condition") == "HasBudget", "Budget: not only if asked for")
    for notified in budget["Properties"]["NotificationsWithSubscribers"]:
        topics = [one["Address"] for one in notified["Subscribers"]]
        expect(topics == [{"Ref": "AlarmsTopic"}], "Budget: does not publish to AlarmsTopic")
    publishers = [one["Principal"]["Service"] for one in template.properties("AlarmsTopicPolicy")["PolicyDocument"]["Statement"]]
    expect("budgets.amazonaws.com" in publishers, "Budget: may not publish to AlarmsTopic")


def check_deployer(template):
    """Asserts that the deployer's policy fits into a managed policy, and knows every service of the template."""
    policy = json.loads(Path(__file__).with_name("deployer-policy.json").read_text())
    expect(len(json.dumps(policy, separators=(",", ":"))) <= POLICY_LIMIT, "deployer-policy.json: too long for a policy")
    allowed = {action.split(":")[0] for statement in policy["Statement"] for action in statement["Action"]}
    gradual = Template(translated(template.source(), GRADUAL))
    for name, resource in gradual.resources.items():
        service = resource["Type"].split("::")[1].lower()
        expect(SERVICES.get(service, service) in allowed, f"{name}: deployer-policy.json cannot create it")
    for statement in policy["Statement"]:
        where = f"deployer-policy.json/{statement['Sid']}"
        reads = all(re.search(":(Describe|Get|List)[A-Za-z]*\\*$", one) for one in statement["Action"] if "*" in one)
        expect(reads, f"{where}: changes by wildcard")
        bounded = statement["Resource"] != ["*"] or "Condition" in statement
        expect(bounded or statement["Sid"] == "WithoutNames", f"{where}: reaches everything")


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
    check_events,
    check_functions,
    check_environment,
    check_tracing,
    check_concurrency,
    check_schedule,
    check_switch,
    check_alarms,
    check_throttle_alarms,
    check_rollout,
    check_budget,
    check_deployer,
    check_names,
]


def main(arguments):
    path = Path(arguments[1])
    source = yaml_parse(path.read_text())
    if arguments[0] == "translate":
        json.dump(translated(source, GRADUAL if "gradual" in arguments else None), sys.stdout, indent=1)
        return 0
    if arguments[0] == "skips":
        # checkov reports one framework as an object.
        check_skips(source, json.loads(Path(arguments[2]).read_text()))
        what = "checkov: no failure, and every skip has its reason"
    else:
        template = Template(json.loads(Path(arguments[2]).read_text()), path)
        check_imported_tables(template, Template(yaml_parse(Path(arguments[3]).read_text())))
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

"""The main job by grpcio.

usage: job.py <address> <customer> <operator key>"""

import sys

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from agentrouter.configurator.v1 import configuration_pb2, configurator_pb2, configurator_pb2_grpc
from agentrouter.providers.v1 import providers_pb2, providers_pb2_grpc
from agentrouter.tenancy.v1 import projects_pb2, projects_pb2_grpc, tenancy_pb2, tenancy_pb2_grpc
from agentrouter.workspaces.v1 import workspaces_pb2, workspaces_pb2_grpc

PATIENCE_S = 60
address, customer, operator_key = sys.argv[1:]


def bearer(token, *more):
    return [("authorization", f"Bearer {token}"), *more]


def refusal(call, *arguments, **options):
    """The code, the reason and the wrong fields of a call that must be refused."""
    try:
        answer = call(*arguments, **options)
    except grpc.RpcError as error:
        status = rpc_status.from_call(error)
        reason, fields = None, []
        for detail in status.details:
            info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
            if detail.Unpack(info):
                reason = info.reason
            elif detail.Unpack(bad):
                fields += [violation.field for violation in bad.field_violations]
        return error.code(), reason, fields
    raise AssertionError(f"not refused: {answer}")


def is_applied(status):
    return status.converged and any(slot.applied_version == 1 for slot in status.slots)


with grpc.insecure_channel(address) as channel:
    tenancy = tenancy_pb2_grpc.TenancyServiceStub(channel)
    projects = projects_pb2_grpc.ProjectsServiceStub(channel)
    workspaces = workspaces_pb2_grpc.WorkspacesServiceStub(channel)
    providers = providers_pb2_grpc.ProvidersServiceStub(channel)
    configurator = configurator_pb2_grpc.ConfiguratorServiceStub(channel)
    operator = {"metadata": bearer(operator_key), "timeout": PATIENCE_S}
    edge = {"customer_id": customer, "workspace_id": "edge"}

    stranger = {"metadata": bearer("wrong")}
    refused = refusal(tenancy.GetCustomer, tenancy_pb2.GetCustomerRequest(customer_id="default"), **stranger)
    assert refused == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", []), refused
    wrong = tenancy_pb2.CreateCustomerRequest(customer_id="Not A Slug")
    refused = refusal(tenancy.CreateCustomer, wrong, **operator)
    assert refused == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS", ["customer_id"]), refused

    tenancy.CreateCustomer(tenancy_pb2.CreateCustomerRequest(customer_id=customer), **operator)
    project = projects_pb2.CreateProjectRequest(customer_id=customer, project_id="chat")
    projects.CreateProject(project, **operator)
    workspaces.CreateWorkspace(workspaces_pb2.CreateWorkspaceRequest(**edge), **operator)
    issued = workspaces.IssueWorkspaceToken(workspaces_pb2.IssueWorkspaceTokenRequest(**edge), **operator)
    worker = {"metadata": bearer(issued.token), "timeout": PATIENCE_S}

    statuses = workspaces.WatchWorkspaceStatus(workspaces_pb2.WatchWorkspaceStatusRequest(**edge), **operator)
    first = next(statuses)
    assert first.workspace.workspace_id == "edge" and not is_applied(first), first

    # The poll waits until there is something.
    poll = configurator_pb2.ListPendingEventsRequest()
    poll.wait.seconds = 40
    polling = configurator.ListPendingEvents.future(poll, **worker)
    provider = providers_pb2.CreateProviderRequest(
        customer_id=customer,
        provider_id="openai",
        schema=providers_pb2.PROVIDER_SCHEMA_OPENAI,
        base_url="https://api.openai.example/v1",
        models=["m"],
        api_key="sk-canary",
    )
    providers.CreateProvider(provider, **operator)
    (event,) = polling.result().events
    assert event.version == 1, event

    claim = configurator_pb2.AcknowledgeEventRequest(event_id=event.id, worker_id=customer)
    claim = configurator.AcknowledgeEvent(claim, **worker)
    assert claim.success, claim
    slot = {"user_id": "system", "config_type": configuration_pb2.CONFIG_TYPE_PROVIDERS}
    query = configurator_pb2.GetConfigurationRequest(queries=[slot])
    (configuration,) = configurator.GetConfiguration(query, **worker).configurations
    (configured,) = configuration.providers.providers
    assert (configured.provider_id, configured.credential.value) == ("openai", "sk-canary"), configuration
    done = configurator_pb2.CompleteEventRequest(event_id=event.id, success=True, claim_token=claim.claim_token)
    assert configurator.CompleteEvent(done, **worker).success

    status = workspaces.GetWorkspaceStatus(workspaces_pb2.GetWorkspaceStatusRequest(**edge), **operator)
    assert is_applied(status), status
    assert any(is_applied(status) for status in statuses), "the stream ended before all was applied"
    statuses.cancel()

    named = {**operator, "metadata": bearer(operator_key, ("x-agentrouter-customer", customer))}
    triggered = configurator.TriggerUpdate(configurator_pb2.TriggerUpdateRequest(**slot), **named)
    assert (triggered.configuration_updated, triggered.configuration.version) == (False, 1), triggered

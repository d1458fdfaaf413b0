//! Messages from and to the model, and what is wrong with the shape of a request.

use agentrouter_api::tenancy as pb;
use agentrouter_kernel::check::{DESCRIPTION_MAX, DISPLAY_NAME_MAX};
use agentrouter_kernel::{Fault, UpdateMask, Violations};
use agentrouter_rpc::convert::{etag, mask_paths, timestamp};

use crate::model::{Changes, Customer, NewCustomer};

const MUTABLE: &[&str] = &["display_name", "description", "labels"];
const IGNORED: &[&str] =
    &["id", "customer_id", "state", "created_at", "updated_at", "archived_at", "etag", "update_mask"];

pub(crate) fn customer(customer: Customer) -> pb::Customer {
    let state = match customer.deleted_at {
        Some(_) => pb::CustomerState::Archived,
        None => pb::CustomerState::Active,
    };
    pb::Customer {
        id: customer.id.to_string(),
        customer_id: customer.slug,
        display_name: customer.display_name,
        description: customer.description,
        state: state.into(),
        labels: customer.labels,
        created_at: Some(timestamp(customer.created_at)),
        updated_at: Some(timestamp(customer.updated_at)),
        archived_at: customer.deleted_at.map(timestamp),
        etag: etag(customer.revision),
    }
}

pub(crate) fn new_customer(request: &pb::CreateCustomerRequest) -> Result<NewCustomer, Fault> {
    let mut violations = Violations::new();
    violations.slug("customer_id", &request.customer_id);
    violations.text("display_name", &request.display_name, DISPLAY_NAME_MAX);
    violations.text("description", &request.description, DESCRIPTION_MAX);
    violations.labels("labels", &request.labels);
    violations.finish()?;
    Ok(NewCustomer {
        slug: request.customer_id.clone(),
        display_name: request.display_name.clone(),
        description: request.description.clone(),
        labels: request.labels.clone(),
    })
}

pub(crate) fn changes(request: &pb::UpdateCustomerRequest) -> Result<Changes, Fault> {
    let mut violations = Violations::new();
    violations.require(!request.customer_id.is_empty(), "customer_id", "is required");
    let mask = UpdateMask::new(mask_paths(request.update_mask.clone()), MUTABLE, IGNORED, &mut violations);
    let labels = (!request.labels.is_empty()).then(|| request.labels.clone());
    let changes = Changes {
        display_name: mask.pick("display_name", request.display_name.clone()),
        description: mask.pick("description", request.description.clone()),
        labels: mask.pick("labels", labels),
    };
    if let Some(display_name) = &changes.display_name {
        violations.text("display_name", display_name, DISPLAY_NAME_MAX);
    }
    if let Some(description) = &changes.description {
        violations.text("description", description, DESCRIPTION_MAX);
    }
    if let Some(labels) = &changes.labels {
        violations.labels("labels", labels);
    }
    violations.finish()?;
    Ok(changes)
}

//! Devices: what is asked for, what drivers tell, what was given.

use serde_json::{Value, json};

use super::{check_create, check_update, created};

/// A slice with one device of these fields.
fn slice(device: &Value) -> Value {
    let mut own = json!({"name": "dev"});
    own.as_object_mut().unwrap().extend(device.as_object().cloned().unwrap());
    json!({"spec": {"devices": [own]}})
}

fn shared(policy: &Value) -> Value {
    slice(&json!({"allowMultipleAllocations": true, "capacity": {"mem": {"value": "10", "requestPolicy": policy}}}))
}

#[test]
fn devices() {
    let exactly = json!({"deviceClassName": "dc"});
    let subs: Vec<Value> = (0..9).map(|i| json!({"name": format!("s{i}"), "deviceClassName": ""})).collect();
    let many: Vec<Value> = (0..65).map(|i| json!({"name": format!("d{i}")})).collect();
    let mut tainted = many.clone();
    tainted[0]["taints"] = json!([{"key": "k", "effect": "NoSchedule"}]);
    check_create(vec![
        (
            "ResourceClaim",
            json!({"spec": {"devices": {"requests": [{"name": "r", "exactly": exactly}, {"name": "r"}]}}}),
            &[
                "spec.devices.requests[1]: Required value: exactly one of `exactly` or `firstAvailable` is required",
                "spec.devices.requests[1]: Duplicate value: \"r\"",
            ],
        ),
        // What is in a list that is too long is not judged.
        (
            "ResourceClaim",
            json!({"spec": {"devices": {"requests": [{"name": "r", "firstAvailable": subs}]}}}),
            &["spec.devices.requests[0].firstAvailable: Too many: 9: must have at most 8 items"],
        ),
        (
            "DeviceClass",
            json!({"spec": {"config": [{"opaque": {"driver": "d", "parameters": {"a": "x".repeat(11_000)}}}]}}),
            &["spec.config[0].opaque.parameters: Too long: may not be more than 10240 bytes"],
        ),
        ("ResourceSlice", json!({"spec": {"devices": many}}), &[]),
        ("ResourceSlice", json!({"spec": {"devices": tainted}}), &["spec.devices: Too many: 65: must have at most 64 items"]),
        (
            "ResourceSlice",
            json!({"spec": {"sharedCounters": []}}),
            &["spec: Invalid value: \"\": only one of `sharedCounters` or `devices` is allowed"],
        ),
        ("ResourceSlice", json!({"spec": {"devices": [{"name": "d"}, {"name": "d"}]}}), &["spec.devices[1]: Duplicate value: \"d\""]),
        (
            "ResourceSlice",
            slice(&json!({"bindingConditions": ["a"], "bindingFailureConditions": ["a"]})),
            &[
                "spec.devices[0].bindingFailureConditions[0]: Invalid value: \"a\": bindingFailureConditions must not overlap with bindingConditions",
            ],
        ),
        (
            "ResourceSlice",
            json!({"spec": {"nodeName": null, "perDeviceNodeSelection": true, "devices": [{"name": "d", "nodeName": ""}]}}),
            &[
                "spec.devices[0].nodeName: Invalid value: \"\": must not be empty",
                "spec.devices[0]: Required value: exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec",
            ],
        ),
        (
            "ResourceSlice",
            slice(&json!({"consumesCounters": [{"counterSet": "a"}, {"counterSet": "b"}, {"counterSet": "c"}]})),
            &["spec.devices[0].consumesCounters: Too many: 3: must have at most 2 items"],
        ),
    ]);
}

#[test]
fn capacities_that_are_shared() {
    let at = "spec.devices[0].capacity[mem].requestPolicy";
    for (policy, wanted) in [
        (json!({"validValues": ["1"]}), vec!["default: Required value: required when validValues is defined"]),
        (json!({"validRange": {"min": "1"}}), vec!["default: Required value: required when validRange is defined"]),
        (json!({"default": "1", "validRange": {"max": "1"}}), vec!["validRange.min: Required value: required when validRange is defined"]),
        (
            json!({"default": "3", "validValues": ["2", "1", "11", "11"]}),
            vec![
                "validValues[1]: Invalid value: \"1\": values must be sorted in ascending order",
                "validValues[2]: Invalid value: \"11\": option is larger than capacity value: 10",
                "validValues[3]: Invalid value: \"11\": option is larger than capacity value: 10",
                "validValues[3]: Duplicate value: \"11\"",
                "validValues: Invalid value: \"3\": default value is not valid according to the requestPolicy",
            ],
        ),
        (
            json!({"default": "1", "validRange": {"min": "4", "max": "3"}}),
            vec![
                "validRange.min: Invalid value: \"1\": default is less than min: 4",
                "validRange.max: Invalid value: \"4\": min is larger than max: 3",
            ],
        ),
        (
            json!({"default": "4", "validRange": {"min": "1", "max": "7", "step": "2"}}),
            vec!["validRange.step: Invalid value: \"4\": value is not a multiple of a given step (2) from (1)"],
        ),
        (json!({"default": "3", "validRange": {"min": "1", "max": "7", "step": "2"}}), vec![]),
    ] {
        let wanted: Vec<String> = wanted.iter().map(|text| format!("{at}.{text}")).collect();
        let (_, _, errors) = created("ResourceSlice", &shared(&policy));
        assert_eq!(errors, wanted, "{policy}");
    }
}

#[test]
fn allocations() {
    let device = |share: Option<&str>| json!({"request": "r", "driver": "d", "pool": "p", "device": "x", "shareID": share});
    let allocated = |share| json!({"status": {"allocation": {"devices": {"results": [device(share)]}}}});
    let uuid = "0e7a6a2c-1d3b-4a5e-8f90-123456789abc";
    let capital = uuid.to_uppercase();
    let told = format!(
        "status.allocation.devices.results[0].shareID: Invalid value: \"{capital}\": uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters"
    );
    let status = json!({"driver": "d", "pool": "p", "device": "x"});
    let both = json!({"status": {"devices": [status, status]}});
    check_update(vec![
        ("ResourceClaim", "status", json!({}), allocated(Some(uuid)), &[]),
        ("ResourceClaim", "status", json!({}), allocated(Some(&capital)), &[told.as_str()]),
        // What was allocated is not judged again.
        ("ResourceClaim", "status", allocated(Some("x")), json!({"metadata": {"labels": {"a": "b"}}}), &[]),
        (
            "ResourceClaim",
            "status",
            allocated(None),
            both,
            &["status.devices[1]: Duplicate value: {\"Driver\":\"d\",\"Pool\":\"p\",\"Device\":\"x\",\"ShareID\":\"\"}"],
        ),
    ]);
}

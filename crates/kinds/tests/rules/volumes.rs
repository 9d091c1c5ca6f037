//! Volumes and claims to them.

use serde_json::{Value, json};

use super::{check_create, check_update};

#[test]
fn claims() {
    let class = |name: Option<&str>| json!({"spec": {"volumeAttributesClassName": name}});
    let applied = json!({
        "spec": {"volumeAttributesClassName": "a"},
        "status": {"phase": "Bound", "currentVolumeAttributesClassName": "a", "capacity": {"storage": "1Gi"}},
    });
    check_create(vec![(
        "PersistentVolumeClaim",
        json!({"spec": {"resources": {"requests": {"storage": "0"}}}}),
        &["spec.resources[storage]: Invalid value: \"0\": must be greater than zero"],
    )]);
    check_update(vec![
        ("PersistentVolumeClaim", "", applied.clone(), class(Some("b")), &[]),
        (
            "PersistentVolumeClaim",
            "",
            applied.clone(),
            class(None),
            &[
                "spec.volumeAttributesClassName: Forbidden: update to nil is forbidden when status.currentVolumeAttributesClassName is not nil",
            ],
        ),
        (
            "PersistentVolumeClaim",
            "",
            applied,
            class(Some("")),
            &[
                "spec.volumeAttributesClassName: Forbidden: update to empty string is forbidden when status.currentVolumeAttributesClassName is not nil",
            ],
        ),
        // One that was never applied may be taken away.
        (
            "PersistentVolumeClaim",
            "",
            json!({"spec": {"volumeAttributesClassName": "a"}, "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}}),
            class(None),
            &[],
        ),
        (
            "PersistentVolumeClaim",
            "status",
            json!({}),
            json!({"status": {"allocatedResourceStatuses": {"cpu": "NodeResizePending"}}}),
            &["status.allocatedResourceStatuses: Unsupported value: \"cpu\": supported values: \"storage\""],
        ),
    ]);
}

#[test]
fn volumes() {
    let csi = json!({"spec": {"hostPath": null, "csi": {"driver": "d", "volumeHandle": "h"}, "volumeAttributesClassName": "a"}});
    check_update(vec![
        (
            "PersistentVolume",
            "",
            csi.clone(),
            json!({"spec": {"csi": {"controllerExpandSecretRef": {"name": "s", "namespace": "n"}}}}),
            &[],
        ),
        (
            "PersistentVolume",
            "",
            csi,
            json!({"spec": {"volumeAttributesClassName": null}}),
            &["spec.volumeAttributesClassName: Forbidden: update from non-nil value to nil is forbidden"],
        ),
    ]);
}

#[test]
fn volumes_within_attachments() {
    let inline = json!({
        "accessModes": ["ReadWriteOnce"], "claimRef": {}, "capacity": {"storage": "1"}, "persistentVolumeReclaimPolicy": "Delete",
        "nodeAffinity": {}, "nfs": {"path": "/a", "server": "s"}, "storageClassName": "c", "volumeMode": "Block",
    });
    let p = "spec.source.inlineVolumeSpec";
    check_create(vec![(
        "VolumeAttachment",
        json!({"spec": {"source": {"persistentVolumeName": null, "inlineVolumeSpec": inline}}}),
        &[
            &format!("{p}.claimRef: Forbidden: may not be specified in the context of inline volumes"),
            &format!("{p}.capacity: Forbidden: may not be specified in the context of inline volumes"),
            &format!("{p}.csi: Required value: has to be specified in the context of inline volumes"),
            &format!("{p}.persistentVolumeReclaimPolicy: Forbidden: may only be Retain in the context of inline volumes"),
            &format!("{p}.nodeAffinity: Forbidden: may not be specified in the context of inline volumes"),
            &format!("{p}.storageClassName: Forbidden: may not be specified in the context of inline volumes"),
            &format!("{p}.volumeMode: Forbidden: may not specify volumeMode other than Filesystem in the context of inline volumes"),
        ],
    )]);
}

#[test]
fn drivers_on_nodes() {
    let drivers = |driver: Value| json!({"spec": {"drivers": [driver]}});
    let first = || drivers(json!({"name": "d", "nodeID": "a", "topologyKeys": ["k"]}));
    check_update(vec![
        ("CSINode", "", first(), drivers(json!({"name": "d", "nodeID": "a", "topologyKeys": ["k"], "allocatable": {"count": 5}})), &[]),
        (
            "CSINode",
            "",
            first(),
            drivers(json!({"name": "d", "nodeID": "b", "topologyKeys": ["k"]})),
            &[
                "CSINodeDriver: Invalid value: {\"Name\":\"d\",\"NodeID\":\"b\",\"TopologyKeys\":[\"k\"],\"Allocatable\":null}: field is immutable",
            ],
        ),
        ("CSINode", "", first(), drivers(json!({"name": "e", "nodeID": "b", "topologyKeys": ["k"]})), &[]),
    ]);
    let error = |message: String| json!({"status": {"attachError": {"message": message, "errorCode": -1}}});
    check_update(vec![
        (
            "VolumeAttachment",
            "status",
            json!({}),
            error("x".repeat(1025)),
            &[
                "status.attachError.message: Too long: may not be more than 262144 bytes",
                "status.attachError.errorCode: Invalid value: -1: must be between 0 and 2147483647, inclusive",
            ],
        ),
        (
            "VolumeAttachment",
            "status",
            json!({}),
            json!({"status": {"attachmentMetadata": {"a": "x".repeat(262_144)}}}),
            &["status.attachmentMetadata: Too long: may not be more than 262144 bytes"],
        ),
    ]);
}

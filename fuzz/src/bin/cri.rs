//! Messages of the Container Runtime Interface: what a runtime tells the kubelet, and what is asked of the runtime. What is read
//! says the same when it is written and read again.
#![no_main]
use cri::v1;
use prost::Message;

fn again<M: Message + Default + PartialEq>(bytes: &[u8]) {
    if let Ok(message) = M::decode(bytes) {
        assert!(M::decode(message.encode_to_vec().as_slice()).is_ok_and(|read| read == message));
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((kind, message)) = bytes.split_first() else { return };
    match kind % 12 {
        0 => again::<v1::ListPodSandboxResponse>(message),
        1 => again::<v1::ListContainersResponse>(message),
        2 => again::<v1::ContainerStatusResponse>(message),
        3 => again::<v1::PodSandboxStatusResponse>(message),
        4 => again::<v1::ListContainerStatsResponse>(message),
        5 => again::<v1::ListImagesResponse>(message),
        6 => again::<v1::ImageStatusResponse>(message),
        7 => again::<v1::StatusResponse>(message),
        8 => again::<v1::ContainerEventResponse>(message),
        9 => again::<v1::RunPodSandboxRequest>(message),
        10 => again::<v1::CreateContainerRequest>(message),
        _ => again::<v1::ExecRequest>(message),
    }
});

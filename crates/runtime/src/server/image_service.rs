//! The CRI's ImageService, over [`crate::images`].

use std::collections::HashSet;
use std::sync::Arc;

use cri::v1::image_service_server::ImageService;
use cri::v1::*;
use tonic::{Request, Response, Status};

use super::{Server, blocking, stats};
use crate::images::{Credentials, Image as Stored, ImageError};

pub(super) struct Service(pub Arc<Server>);

type Answer<T> = Result<Response<T>, Status>;
type Many<T> = futures::stream::Iter<std::vec::IntoIter<Result<T, Status>>>;

/// One message, as a stream.
fn once<T>(message: T) -> Response<Many<T>> {
    Response::new(futures::stream::iter(vec![Ok(message)]))
}

fn status(error: ImageError) -> Status {
    match error {
        ImageError::Reference { .. } => Status::invalid_argument(error.to_string()),
        ImageError::NotFound(_) => Status::not_found(error.to_string()),
        _ => Status::unknown(error.to_string()),
    }
}

fn image(stored: &Stored) -> Image {
    let user = stored.config.user.split(':').next().unwrap_or_default();
    let uid = user.parse::<i64>().ok();
    Image {
        id: stored.id.clone(),
        repo_tags: stored.tags.clone(),
        repo_digests: stored.digests.clone(),
        size: stored.size_bytes,
        uid: uid.map(|value| Int64Value { value }),
        username: if uid.is_none() { user.to_owned() } else { String::new() },
        spec: Some(ImageSpec { image: stored.id.clone(), ..Default::default() }),
        pinned: stored.pinned,
    }
}

impl Service {
    fn images(&self, filter: Option<ImageFilter>) -> Vec<Image> {
        let wanted = filter.and_then(|f| f.image).map(|i| i.image).filter(|name| !name.is_empty());
        match wanted {
            Some(name) => self.0.images.find(&name).iter().map(image).collect(),
            None => self.0.images.list().iter().map(image).collect(),
        }
    }
}

fn credentials(auth: Option<AuthConfig>) -> Result<Credentials, Status> {
    use base64::Engine;
    let Some(auth) = auth else { return Ok(Credentials::Anonymous) };
    if !auth.registry_token.is_empty() {
        return Ok(Credentials::Bearer(auth.registry_token));
    }
    if !auth.username.is_empty() {
        return Ok(Credentials::Basic(auth.username, auth.password));
    }
    if auth.auth.is_empty() {
        return Ok(Credentials::Anonymous);
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(auth.auth).ok().and_then(|b| String::from_utf8(b).ok());
    let pair = bytes.as_deref().and_then(|text| text.trim_end_matches('\0').split_once(':'));
    let (user, password) = pair.ok_or_else(|| Status::invalid_argument("invalid auth: not base64 of user:password"))?;
    Ok(Credentials::Basic(user.to_owned(), password.to_owned()))
}

#[tonic::async_trait]
impl ImageService for Service {
    async fn list_images(&self, request: Request<ListImagesRequest>) -> Answer<ListImagesResponse> {
        Ok(Response::new(ListImagesResponse { images: self.images(request.into_inner().filter) }))
    }

    type StreamImagesStream = Many<StreamImagesResponse>;

    async fn stream_images(&self, request: Request<StreamImagesRequest>) -> Answer<Self::StreamImagesStream> {
        Ok(once(StreamImagesResponse { images: self.images(request.into_inner().filter) }))
    }

    async fn image_status(&self, request: Request<ImageStatusRequest>) -> Answer<ImageStatusResponse> {
        let request = request.into_inner();
        let name = request.image.map(|i| i.image).unwrap_or_default();
        let stored = self.0.images.find(&name);
        let mut info = std::collections::HashMap::new();
        if let (true, Some(stored)) = (request.verbose, &stored) {
            info.insert(
                "info".to_owned(),
                serde_json::json!({ "chainIDs": stored.layers, "imageSpec": { "config": stored.config } }).to_string(),
            );
        }
        Ok(Response::new(ImageStatusResponse { image: stored.as_ref().map(image), info }))
    }

    async fn pull_image(&self, request: Request<PullImageRequest>) -> Answer<PullImageResponse> {
        let request = request.into_inner();
        let name = request.image.map(|i| i.image).unwrap_or_default();
        let pulled = self.0.images.pull(&name, credentials(request.auth)?).await.map_err(status)?;
        Ok(Response::new(PullImageResponse { image_ref: pulled.id }))
    }

    async fn remove_image(&self, request: Request<RemoveImageRequest>) -> Answer<RemoveImageResponse> {
        let name = request.into_inner().image.map(|i| i.image).unwrap_or_default();
        let in_use: HashSet<_> = self.0.state().containers.values().flat_map(|c| c.spec.layers.iter().cloned()).collect();
        let images = self.0.images.clone();
        blocking(move || images.remove(&name, &in_use).map_err(status)).await?;
        Ok(Response::new(RemoveImageResponse {}))
    }

    async fn image_fs_info(&self, _: Request<ImageFsInfoRequest>) -> Answer<ImageFsInfoResponse> {
        let server = Arc::clone(&self.0);
        let (images, containers) = blocking(move || {
            let containers = server.config.containers_dir();
            let used = stats::measure(&containers);
            Ok((stats::filesystem(server.images.dir(), server.images.used()), stats::filesystem(&containers, used)))
        })
        .await?;
        Ok(Response::new(ImageFsInfoResponse { image_filesystems: vec![images], container_filesystems: vec![containers] }))
    }
}

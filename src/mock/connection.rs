//! Connections, which may have to end without an answer: why this is not `axum::serve`.

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Marks a response in whose place the connection is reset.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the connection is to be reset")]
pub(super) struct Reset;

/// Serves whoever connects until it is dropped, and then nobody any more.
pub(super) async fn accept(listener: TcpListener, router: Router) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(serve(stream, router.clone()));
            }
            // Out of file descriptors, most likely; some come back.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, router: Router) {
    // What fails here has failed for the client too, and the client tells.
    let _ = stream.set_nodelay(true);
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request: Request<Incoming>| {
        let answer = router.call(request);
        async {
            let Ok(response) = answer.await;
            response.extensions().get::<Reset>().map_or(Ok(()), |reset| Err(*reset)).map(|()| response)
        }
    });
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    if let Err(error) = (&mut connection).await
        && error.source().is_some_and(|source| source.is::<Reset>())
    {
        let _ = connection.into_parts().io.into_inner().set_zero_linger();
    }
}

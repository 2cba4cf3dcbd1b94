pub trait Disk: Send + Sync + 'static {}
pub struct RealDisk;
impl Disk for RealDisk {}

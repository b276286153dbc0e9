fn main() {
    println!("{}", env!("XGRE_BPF_OBJECT"));
}

import CKernels

/// Every inner loop of the product, as a table of C-callable functions. `CKernels.h` has their arguments and `Oracle`
/// their meaning; all tables give the same bits.
package struct KernelTable: Sendable {

  /// What a way of multiplying reaches at most, its instructions alone in its kernel's order: `iterations` of
  /// `AT_CEILING_PRODUCTS` products.
  package typealias Ceiling = @convention(c) @Sendable (_ iterations: Int) -> UInt32

  package var name: String
  package var quantizeRows: @convention(c) @Sendable (UnsafePointer<at_quantize>) -> Void
  package var gemmInt8: @convention(c) @Sendable (UnsafePointer<at_gemm>) -> Void
  /// For weights whose codes are limited as `CodeForm.pairs` and `.fours` say.
  package var gemmInt8Pairs: @convention(c) @Sendable (UnsafePointer<at_gemm>) -> Void
  package var gemmInt8Fours: @convention(c) @Sendable (UnsafePointer<at_gemm>) -> Void
  package var gemmFloat32: @convention(c) @Sendable (UnsafePointer<at_gemm>) -> Void
  package var gemmFloat16: @convention(c) @Sendable (UnsafePointer<at_gemm>) -> Void
  package var winogradInputs: @convention(c) @Sendable (UnsafePointer<at_winograd>) -> Void
  package var winogradProducts: @convention(c) @Sendable (UnsafePointer<at_winograd>) -> Void
  package var layerNorm: @convention(c) @Sendable (UnsafePointer<at_layer_norm>) -> Void
  package var widen: @convention(c) @Sendable (UnsafePointer<at_widen>) -> Void
  package var channelSums: @convention(c) @Sendable (UnsafePointer<at_channel_sums>) -> Void
  package var channelRanges: @convention(c) @Sendable (UnsafePointer<at_channel_ranges>) -> Void
  package var affine: @convention(c) @Sendable (UnsafePointer<at_affine>) -> Void
  package var map: @convention(c) @Sendable (UnsafePointer<at_map>) -> Void
  package var add: @convention(c) @Sendable (UnsafePointer<at_add>) -> Void
  package var gatedGELU: @convention(c) @Sendable (UnsafePointer<at_gated_gelu>) -> Void
  package var attention: @convention(c) @Sendable (UnsafePointer<at_attention>) -> Void
  package var attentionPack: @convention(c) @Sendable (UnsafePointer<at_attention_pack>) -> Void
  package var attentionInt8: @convention(c) @Sendable (UnsafePointer<at_attention_int8>) -> Void
  /// Panels of weights that the products in int8 take side by side at their full rate.
  package var tilePanels = 2
  /// Of the products in int8 and of `attentionInt8`, where they are written for instructions of the processor.
  package var ceilings: (int8: Ceiling, int8Pairs: Ceiling, int8Fours: Ceiling, attention: Ceiling)?
}

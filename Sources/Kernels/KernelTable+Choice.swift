import CKernels

/// Why no kernel table could be chosen.
package enum KernelChoiceError: Error, Equatable, CustomStringConvertible {
  /// No table has this name on any processor.
  case unknown(name: String, available: [String])
  /// The table exists, and this processor or this build cannot run it.
  case cannotRun(name: String, available: [String])

  package var description: String {
    switch self {
    case .unknown(let name, let available):
      "There are no kernels named \"\(name)\": choose one of \(available.joined(separator: ", "))."
    case .cannotRun(let name, let available):
      "This processor cannot run the kernels \"\(name)\": choose one of \(available.joined(separator: ", "))."
    }
  }
}

extension KernelTable {
  /// Every name that some processor knows.
  private static let names = [
    "oracle", "portable", "sse41", "avx2", "avx2single", "avxvnni", "avx512vnni", "neon", "dotprod", "i8mm",
  ]

  /// The tables that this processor can run, from the slowest to the fastest.
  package static var available: [KernelTable] { available(for: at_cpu_features()) }

  private static func available(for features: UInt32) -> [KernelTable] {
    func has(_ needed: Int...) -> Bool { needed.allSatisfy { features & UInt32($0) != 0 } }
    var tables = [Oracle.kernels, Portable.kernels]
    #if arch(x86_64)
      if has(AT_CPU_SSE41) { tables.append(sse41) }
      if has(AT_CPU_AVX2) {
        tables += has(AT_CPU_SINGLE_MULTIPLIER) ? [avx2, avx2Single] : [avx2Single, avx2]
      }
      if has(AT_CPU_AVX2, AT_CPU_AVX_VNNI) { tables.append(avxVNNI) }
      if has(AT_CPU_AVX2, AT_CPU_AVX512_VNNI) { tables.append(avx512VNNI) }
    #elseif arch(arm64)
      if has(AT_CPU_NEON) { tables.append(neon) }
      if has(AT_CPU_NEON, AT_CPU_DOTPROD) { tables.append(dotprod) }
      if has(AT_CPU_NEON, AT_CPU_DOTPROD, AT_CPU_I8MM) { tables.append(i8mm) }
    #endif
    return tables
  }

  /// The fastest table for a processor with these features, or the one asked for by name.
  ///
  /// - Parameter features: as from `at_cpu_features()`. To claim more than the processor has is a programmer's error.
  /// - Throws: `KernelChoiceError` where the name is unknown or its instructions are missing.
  package static func best(
    for features: UInt32 = at_cpu_features(), named name: String? = nil
  ) throws(KernelChoiceError) -> KernelTable {
    let tables = available(for: features)
    guard let name else { return tables[tables.count - 1] }
    if let table = tables.first(where: { $0.name == name }) { return table }
    let available = tables.map(\.name)
    guard names.contains(name) else { throw .unknown(name: name, available: available) }
    throw .cannotRun(name: name, available: available)
  }

  #if arch(x86_64)
    static let sse41 = KernelTable(
      name: "sse41",
      quantizeRows: at_quantize_rows_sse41,
      gemmInt8: at_gemm_int8_sse41,
      gemmInt8Pairs: at_gemm_int8_pairs_sse41,
      gemmInt8Fours: at_gemm_int8_fours_sse41,
      gemmFloat32: at_gemm_float32_sse41,
      gemmFloat16: at_gemm_float16_sse41,
      winogradInputs: at_winograd_inputs_sse41,
      winogradProducts: at_winograd_products_sse41,
      layerNorm: at_layer_norm_sse41,
      widen: at_widen_sse41,
      channelSums: at_channel_sums_sse41,
      channelRanges: at_channel_ranges_sse41,
      affine: at_affine_sse41,
      map: at_map_sse41,
      add: at_add_sse41,
      gatedGELU: at_gated_gelu_sse41,
      attention: at_attention_sse41,
      attentionPack: at_attention_pack_sse41,
      attentionInt8: at_attention_int8_sse41,
      ceilings: (
        at_ceiling_int16_sse41, at_ceiling_int8_pairs_sse41, at_ceiling_int8_fours_sse41, at_ceiling_int16_sse41
      ))

    static let avx2 = KernelTable(
      name: "avx2",
      quantizeRows: at_quantize_rows_avx2,
      gemmInt8: at_gemm_int8_avx2,
      gemmInt8Pairs: at_gemm_int8_pairs_avx2,
      gemmInt8Fours: at_gemm_int8_fours_avx2,
      gemmFloat32: at_gemm_float32_avx2,
      gemmFloat16: at_gemm_float16_avx2,
      winogradInputs: at_winograd_inputs_avx2,
      winogradProducts: at_winograd_products_avx2,
      layerNorm: at_layer_norm_avx2,
      widen: at_widen_avx2,
      channelSums: at_channel_sums_avx2,
      channelRanges: at_channel_ranges_avx2,
      affine: at_affine_avx2,
      map: at_map_avx2,
      add: at_add_avx2,
      gatedGELU: at_gated_gelu_avx2,
      attention: at_attention_avx2,
      attentionPack: at_attention_pack_avx2,
      attentionInt8: at_attention_int8_avx2,
      ceilings: (
        at_ceiling_int16_avx2, at_ceiling_int8_pairs_avx2, at_ceiling_int8_fours_avx2, at_ceiling_int16_avx2
      ))

    static let avx2Single = {
      var table = avx2
      table.name = "avx2single"
      table.gemmInt8Pairs = at_gemm_int8_pairs_avx2single
      table.ceilings?.int8Pairs = at_ceiling_int8_pairs_avx2single
      return table
    }()

    static let avxVNNI = {
      var table = avx2.multiplying(
        name: "avxvnni", by: at_gemm_int8_avxvnni, ceiling: at_ceiling_int8_avxvnni
      ).attending(
        by: at_attention_int8_avxvnni, packing: at_attention_pack_avxvnni, ceiling: at_ceiling_int8_avxvnni)
      table.winogradInputs = at_winograd_inputs_avxvnni
      table.winogradProducts = at_winograd_products_avxvnni
      return table
    }()
    static let avx512VNNI = {
      var table = avx2.multiplying(
        name: "avx512vnni", by: at_gemm_int8_avx512vnni, ceiling: at_ceiling_int8_avx512vnni
      ).attending(
        by: at_attention_int8_avx512vnni, packing: at_attention_pack_avx512vnni, ceiling: at_ceiling_int8_avx512vnni)
      table.tilePanels = 4
      table.winogradInputs = at_winograd_inputs_avx512vnni
      table.winogradProducts = at_winograd_products_avx512vnni
      table.quantizeRows = at_quantize_rows_avx512vnni
      table.widen = at_widen_avx512vnni
      table.channelSums = at_channel_sums_avx512vnni
      table.channelRanges = at_channel_ranges_avx512vnni
      table.affine = at_affine_avx512vnni
      table.map = at_map_avx512vnni
      table.add = at_add_avx512vnni
      table.gatedGELU = at_gated_gelu_avx512vnni
      table.attention = at_attention_avx512vnni
      return table
    }()
  #elseif arch(arm64)
    static let neon = KernelTable(
      name: "neon",
      quantizeRows: at_quantize_rows_neon,
      gemmInt8: at_gemm_int8_neon,
      gemmInt8Pairs: at_gemm_int8_neon,
      gemmInt8Fours: at_gemm_int8_neon,
      gemmFloat32: at_gemm_float32_neon,
      gemmFloat16: at_gemm_float16_neon,
      winogradInputs: at_winograd_inputs_neon,
      winogradProducts: at_winograd_products_neon,
      layerNorm: at_layer_norm_neon,
      widen: at_widen_neon,
      channelSums: at_channel_sums_neon,
      channelRanges: at_channel_ranges_neon,
      affine: at_affine_neon,
      map: at_map_neon,
      add: at_add_neon,
      gatedGELU: at_gated_gelu_neon,
      attention: at_attention_neon,
      attentionPack: at_attention_pack_neon,
      attentionInt8: at_attention_int8_neon,
      ceilings: (at_ceiling_int8_neon, at_ceiling_int8_neon, at_ceiling_int8_neon, at_ceiling_int16_neon))

    static let dotprod = neon.multiplying(
      name: "dotprod", by: at_gemm_int8_dotprod, ceiling: at_ceiling_int8_dotprod
    ).attending(
      by: at_attention_int8_dotprod, packing: at_attention_pack_dotprod, ceiling: at_ceiling_int8_dotprod)
    static let i8mm = dotprod.multiplying(
      name: "i8mm", by: at_gemm_int8_i8mm, ceiling: at_ceiling_int8_i8mm)
  #endif

  #if arch(x86_64) || arch(arm64)
    /// This table with another product of integers, which takes weights of any kind.
    private func multiplying(
      name: String, by gemm: @escaping @convention(c) @Sendable (UnsafePointer<at_gemm>) -> Void,
      ceiling: @escaping Ceiling
    ) -> KernelTable {
      var table = self
      table.name = name
      table.gemmInt8 = gemm
      table.gemmInt8Pairs = gemm
      table.gemmInt8Fours = gemm
      table.ceilings?.int8 = ceiling
      table.ceilings?.int8Pairs = ceiling
      table.ceilings?.int8Fours = ceiling
      return table
    }

    /// This table with another attention of integers.
    private func attending(
      by attention: @escaping @convention(c) @Sendable (UnsafePointer<at_attention_int8>) -> Void,
      packing pack: @escaping @convention(c) @Sendable (UnsafePointer<at_attention_pack>) -> Void,
      ceiling: @escaping Ceiling
    ) -> KernelTable {
      var table = self
      table.attentionPack = pack
      table.attentionInt8 = attention
      table.ceilings?.attention = ceiling
      return table
    }
  #endif
}
